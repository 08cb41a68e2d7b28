"""The stage-aware model as a kind of reward model: its settings checked, described, trained, loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robo_core.errors import ConfigError, ModelError
from robo_datasets.store.instructions import instruction_groups
from robo_rm.encoders.conv import WORD_VECTOR
from robo_rm.encoders.frozen import FrozenEncoder
from robo_rm.encoders.sentences import WORDS, SentenceEncoder
from robo_rm.encoders.stored import StoredFeatures
from robo_rm.labels.progress import training_priors
from robo_rm.labels.repeats import check_repeats
from robo_rm.labels.split import labelled_episodes
from robo_rm.labels.tasks import task_priors
from robo_rm.reward_models.registry import FitRequest, FitResult, RewardKind
from robo_rm.reward_models.saving import built, fill_weights
from robo_rm.reward_models.stage.model import NAME, StageDescription, StageRewardModel
from robo_rm.reward_models.stage.sparse import (
    DENSE,
    SPARSE,
    SparseStages,
    describe_sparse,
    sparse_episodes,
    sparse_store,
)
from robo_rm.reward_models.stage.trainer import StageObjective
from robo_rm.settings import ENCODERS, ConvSettings, FrozenSettings, OptimiserSettings, StageSettings
from robo_rm.training.cameras import chosen_cameras, chosen_state
from robo_rm.training.data import TrainingData, frame_labels
from robo_rm.training.device import first_process_first, pick_device
from robo_rm.training.fit import Fit


class StagePlan:
    """What the settings make of the training split; see `robo_rm.training.fit.Plan`."""

    def __init__(self, request: FitRequest, train: Sequence[Any]) -> None:
        check_settings(request.reward, request.encoder, request.optimiser)
        self.request, self.train = request, train
        self.notes = check_repeats(train, list(request.store.stages), request.repeats)
        self.labelled = True
        self.frozen = None
        if isinstance(request.encoder, FrozenSettings):
            self.frozen = FrozenEncoder(request.encoder, pick_device(request.device))
        self.sentences = _sentences(request)
        self.description = describe(request, train, self.frozen, self.sentences)
        self.state_key: str | None = self.description.state_key
        self.frames_per_step = request.optimiser.batch * (request.reward.history + 1)
        groups = self.description.instruction_groups
        self.provenance: Mapping[str, Any] = {
            "priors": list(self.description.priors),
            **({"task_priors": self.description.task_priors} if self.description.task_priors else {}),
            **({"instruction_groups": self.description.instruction_groups} if groups else {}),
            **({"text_weights": self.sentences.identity} if self.sentences is not None else {}),
            "fps": self.description.fps,
            "encoder": request.encoder.name,
            **({"encoder_weights": self.description.identity["weights_sha256"]} if self.frozen else {}),
        }

    def objective(self, device: str) -> StageObjective:
        """Read the training split and make what is trained."""
        seed = self.request.seed
        return StageObjective(
            self.description, self.data(), self.request.optimiser, seed, device, self.frozen, self.sentences
        )

    def data(self) -> TrainingData:
        """The training split."""
        features = None
        if self.frozen is not None:
            features = StoredFeatures(self.request.store, self.frozen.identity, list(self.description.cameras))
            # Those held out too: they are evaluated by the same features.
            with first_process_first():
                features.make(self._frozen, labelled_episodes(self.request.store))
        spec = self.description
        data = TrainingData.load(
            self.train,
            spec.priors,
            spec.cameras,
            spec.state_key,
            self.request.cache_gb * 1e9,
            features,
            spec.task_priors,
        )
        if self.description.sparse is not None:
            view = sparse_store(self.request.store, self.request.reward.sparse)
            sparse = self.description.sparse
            grouped = sparse_episodes(view, self.train)
            data.sparse = frame_labels(grouped, sparse.priors, sparse.task_priors)
        return data

    def _frozen(self) -> FrozenEncoder:
        assert self.frozen is not None
        return self.frozen


def fit(request: FitRequest) -> FitResult:
    """Train a stage-aware model on the labelled episodes of a store."""
    return Fit(request, StagePlan).run()


def load(
    folder: Path, described: Mapping[str, Any], provenance: Mapping[str, Any], device: str = "auto"
) -> StageRewardModel:
    """Read a saved stage-aware model.

    Raises:
        ModelError: the folder is damaged.
    """
    known = {**_SINCE, **described}
    description = built(StageDescription, known, folder)
    shape = description.encoder if isinstance(description.encoder, dict) else {}
    name = shape.get("name")
    if name not in ENCODERS:
        raise ModelError(f"{folder} holds a model with the unknown encoder {name!r}; known: {', '.join(ENCODERS)}")
    description = replace(description, encoder=built(ENCODERS[name], shape, folder))
    if description.sparse is not None:
        description = replace(description, sparse=built(SparseStages, description.sparse, folder))
    if description.head not in (DENSE, *((SPARSE,) if description.sparse is not None else ())):
        raise ModelError(f"{folder} describes a model with the unknown head {description.head!r}")
    cameras = {key: (int(size[0]), int(size[1])) for key, size in description.cameras.items()}
    description = replace(description, cameras=cameras)
    network = description.network()
    fill_weights(network, folder)
    return StageRewardModel(network, description, provenance, pick_device(device))


# What folders of before say nothing of.
_SINCE: dict[str, Any] = {"features": 0, "text": WORD_VECTOR, "identity": {}, "task_priors": {}}


def check_settings(reward: StageSettings, encoder: ConvSettings | FrozenSettings, optimiser: OptimiserSettings) -> None:
    """Refuse settings that no store can make sense of.

    Raises:
        ConfigError: names the setting.
    """
    positive = {
        "reward.history": reward.history,
        "reward.gap_seconds": reward.gap_seconds,
        "reward.layers": reward.layers,
        "reward.heads": reward.heads,
        "optimiser.batch": optimiser.batch,
        "optimiser.learning_rate": optimiser.learning_rate,
    }
    if isinstance(encoder, ConvSettings):
        positive |= {
            "encoder.image_size": encoder.image_size,
            "encoder.channels": min(encoder.channels, default=0),
        }
    shares = {
        "reward.dropout": reward.dropout,
        "reward.state_dropout": reward.state_dropout,
        "reward.image_dropout": reward.image_dropout,
        "reward.instruction_dropout": reward.instruction_dropout,
        "reward.instruction_mismatch": reward.instruction_mismatch,
        "reward.teacher_forcing": reward.teacher_forcing,
        "reward.loss.unfinished": reward.loss.unfinished,
        "reward.plan.rewind": reward.plan.rewind,
        "reward.plan.pause": reward.plan.pause,
        "reward.plan.hold": reward.plan.hold,
        "reward.plan.jitter": reward.plan.jitter,
        "encoder.dropout": encoder.dropout,
        "optimiser.average": optimiser.average,
    }
    for name, value in positive.items():
        if not value > 0:
            raise ConfigError(f"{name}={value}: give a number above 0")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name}={value}: give a share from 0 to 1")
    if encoder.name not in ENCODERS:
        raise ConfigError(f"encoder.name={encoder.name}: give one of {', '.join(ENCODERS)}")
    if isinstance(encoder, ConvSettings) and (encoder.stem < 2 or encoder.stem % 2):
        raise ConfigError(f"encoder.stem={encoder.stem}: give an even number, 2 or more")
    if reward.text != WORDS and getattr(encoder, "text", False):
        raise ConfigError(f"reward.text={reward.text} and encoder.text=true: one of them reads instructions, not both")
    if reward.width % reward.heads:
        raise ConfigError(f"reward.width={reward.width} is not a multiple of reward.heads={reward.heads}")
    if reward.composition not in ("expectation", "argmax"):
        raise ConfigError(f"reward.composition={reward.composition}: expectation or argmax")


def _sentences(request: FitRequest) -> SentenceEncoder | None:
    """The sentence encoder that the settings name."""
    if request.reward.text == WORDS:
        return None
    return SentenceEncoder(request.reward.text, pick_device(request.device))


def describe(
    request: FitRequest,
    train: Sequence[Any],
    frozen: FrozenEncoder | None = None,
    sentences: SentenceEncoder | None = None,
) -> StageDescription:
    """The model that the settings make of a store; priors are those of the training split.

    Raises:
        ConfigError: the store has no camera, or not the one asked for.
        StoreError: a camera's images are not colour images of 8 bits.
    """
    store = request.store
    cameras = chosen_cameras(request) if frozen is None else dict.fromkeys(chosen_cameras(request), frozen.size)
    text = WORD_VECTOR if sentences is None else sentences.size
    groups = instruction_groups(store)
    if frozen is not None and request.encoder.text:
        text = int(frozen.encode_text([""]).shape[1])
    state_key, state_size = chosen_state(request)
    tasks = Counter(episode.task or "" for episode in train)
    sparse = request.reward.sparse
    return StageDescription(
        stages=list(store.stages),
        priors=training_priors(train, len(store.stages)).tolist(),
        cameras=cameras,
        state_key=state_key,
        state_size=state_size,
        fps=float(store.fps),
        task=tasks.most_common(1)[0][0],
        reward=request.reward,
        encoder=request.encoder,
        features=0 if frozen is None else frozen.features,
        text=text,
        task_priors=task_priors(train, len(store.stages), groups),
        identity={} if frozen is None else dict(frozen.identity),
        sparse=None if sparse is None else describe_sparse(sparse_store(store, sparse), train, groups),
        text_identity="" if sentences is None else sentences.identity,
        instruction_groups=groups,
    )


KIND = RewardKind(NAME, StageSettings, fit, load)
