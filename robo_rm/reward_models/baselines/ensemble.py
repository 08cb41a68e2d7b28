"""Several reward models of one kind, trained alike from different seeds, as one careful model.

    worst   F = min_i F_i                                    what even the most doubtful member believes
    lcb     F = mean_i F_i - penalty * var_i F_i             (uncertainty-weighted optimisation)

after the worst-case and uncertainty-weighted ensembles of Coste et al. (arXiv 2310.02743), 4 or 5 members. The
uncertainty is the standard deviation over members. Stage probabilities are those of the member with the least progress
(worst), or the members' mean. Each member encodes each image once, so an ensemble costs as many times a single model.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robo_core.console import say
from robo_core.errors import ConfigError, ModelError
from robo_rm.reward_models.base import BaseRewardModel
from robo_rm.reward_models.calibration import CalibratedModel
from robo_rm.reward_models.capabilities import capability, device_of
from robo_rm.reward_models.card import plain_card
from robo_rm.reward_models.prediction import Estimate, Prediction
from robo_rm.reward_models.protocol import Observations, RewardModel, StreamsMany
from robo_rm.reward_models.registry import FitRequest, FitResult, RewardKind, reward_kind
from robo_rm.reward_models.saving import WEIGHTS, built, load_reward_model, save_model_folder
from robo_rm.training.budget import MINUTES

NAME = "ensemble"
RULES = ("worst", "lcb")


@dataclass(frozen=True)
class EnsembleSettings:
    """Several models of one kind as one."""

    name: str = NAME
    """Which reward model this is."""
    member: str = "stage"
    """Kind of the members."""
    members: int = 4
    """How many."""
    rule: str = "worst"
    """worst: the least progress of all; lcb: the mean less `penalty` times the variance."""
    penalty: float = 5.0
    """Weight of the variance in lcb."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the members, such as reward.settings.history=4."""


@dataclass(frozen=True)
class EnsembleDescription:
    """What, besides its members, makes the model."""

    members: int
    rule: str
    penalty: float
    checksums: list[str] = field(default_factory=list)
    """Of the members' weights, in a saved folder."""


class EnsembleModel(BaseRewardModel):
    """Members behind one protocol."""

    type_name = NAME

    def __init__(
        self, members: Sequence[RewardModel], description: EnsembleDescription, provenance: Mapping[str, Any]
    ) -> None:
        self.members, self.description = list(members), description
        first = self.members[0]
        # An image counts as encoded once, though each member encodes it.
        super().__init__(first.stages, first.cameras, first.state_key, provenance, device_of(first) or "cpu")

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """Estimates for every frame of one episode."""
        guesses = [member.predict(episode, task) for member in self.members]
        self.frames_encoded += len(guesses[0]) * len(self.cameras)
        return combine(guesses, self.description)

    def stream(self, task: str | None = None) -> EnsembleStream:
        """Follow an episode frame by frame."""
        return EnsembleStream(self, task)

    def streams(self, count: int, task: str | None = None, every: int = 1) -> EnsembleStreams:
        """Follow many episodes at once, looking at every so many frames.

        Raises:
            ModelError: the members cannot, or not at this pace.
        """
        return EnsembleStreams(self, count, task, every)

    def save(self, folder: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> None:
        """Write the members' folders and the model's."""
        root = Path(folder)
        for number, member in enumerate(self.members):
            member.save(member_folder(root, number))
        self.save_rule(root, settings)

    def save_rule(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        """Write the folder around members that stand in it already."""
        description = replace(self.description, checksums=_checksums(folder, self.description.members))
        save_model_folder(
            folder,
            kind=NAME,
            description=asdict(description),
            tensors={"members": torch.tensor([len(self.members)])},
            provenance=self.provenance,
            card=self.card(),
            settings=settings,
        )

    def card(self) -> str:
        """The model card, in Markdown."""
        return plain_card(self, "ensemble", f"{len(self.members)} models as one, by the rule '{self.description.rule}'")


class EnsembleStream:
    """The members' streams side by side."""

    def __init__(self, model: EnsembleModel, task: str | None) -> None:
        self._model, self._streams = model, [member.stream(task) for member in model.members]

    def step(self, frames: Mapping[str, npt.NDArray[np.uint8]], state: npt.ArrayLike | None = None) -> Estimate:
        """Estimate for the newest frame."""
        steps = [stream.step(frames, state) for stream in self._streams]
        self._model.frames_encoded += len(self._model.cameras)
        guesses = [
            Prediction(
                np.array([step.progress], dtype=np.float32),
                np.asarray(step.stage_probabilities, dtype=np.float32)[None],
                np.array([step.uncertainty], dtype=np.float32),
            )
            for step in steps
        ]
        said = combine(guesses, self._model.description)
        return Estimate(float(said.progress[0]), said.stage_probabilities[0], float(said.uncertainty[0]))

    def reset(self) -> None:
        """Begin a new episode."""
        for stream in self._streams:
            stream.reset()


class EnsembleStreams:
    """The members' streams of many episodes side by side.

    Args:
        model: the ensemble.
        count: episodes.
        task: the instruction; the members' own if None.
        every: frames at the store's rate between two steps.

    Raises:
        ModelError: the members follow one episode at a time, or not at this pace.
    """

    def __init__(self, model: EnsembleModel, count: int, task: str | None = None, every: int = 1) -> None:
        members = [capability(member, StreamsMany) for member in model.members]
        if None in members:
            raise ModelError(
                "the members of this ensemble follow one episode at a time; train one of stage models: "
                "robo-rm train-reward reward=ensemble"
            )
        self._model, self._streams = (
            model,
            [member.streams(count, task, every) for member in members if member is not None],
        )

    def reset(self, which: npt.ArrayLike | None = None) -> None:
        """Begin new episodes: at the indices or the mask given, or all."""
        for stream in self._streams:
            stream.reset(which)

    def step(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        state: npt.ArrayLike | None = None,
        which: npt.ArrayLike | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Progress (n,), stage probabilities (n, K) and uncertainty (n,) of the newest frames.

        Args:
            frames: images (n, H, W, 3) uint8 by key.
            state: (n, D), where the members read one.
            which: the n episodes that step, indices; all in their order if None.
        """
        # The rule looks at one frame at a time, so n episodes go through it like n frames of one.
        guesses = [Prediction(*stream.step(frames, state, which)) for stream in self._streams]
        self._model.frames_encoded += len(guesses[0].progress) * len(self._model.cameras)
        said = combine(guesses, self._model.description)
        return said.progress, said.stage_probabilities, said.uncertainty


def with_rule(model: RewardModel, rule: str, penalty: float) -> EnsembleModel:
    """The same members under another rule.

    Args:
        model: an ensemble.
        rule: ``worst`` (WCO) or ``lcb`` (UWO).
        penalty: of the variance in ``lcb``.

    Raises:
        ConfigError: the model is no ensemble, the rule is not known, or the penalty is below 0.
        ModelError: the ensemble is calibrated, for its own rule.
    """
    if isinstance(model, CalibratedModel) and isinstance(model.model, EnsembleModel):
        raise ModelError(
            f"the ensemble is calibrated for its own rule, not for {rule!r}; robo-rm calibrate model=... remove=true "
            "takes the calibration away"
        )
    if not isinstance(model, EnsembleModel):
        raise ConfigError(
            f"the rule {rule!r} weighs the members of an ensemble, and this reward model is a single one; train one "
            "with robo-rm train-reward reward=ensemble"
        )
    if rule not in RULES or not penalty >= 0:
        raise ConfigError(f"rule {rule!r} with penalty {penalty}: choose one of {', '.join(RULES)}, and 0 or more")
    return EnsembleModel(model.members, replace(model.description, rule=rule, penalty=penalty), model.provenance)


def combine(guesses: Sequence[Prediction], description: EnsembleDescription) -> Prediction:
    """One prediction of several (T,) ones."""
    progress = np.stack([guess.progress for guess in guesses]).astype(np.float64)
    chances = np.stack([guess.stage_probabilities for guess in guesses])
    spread = progress.std(axis=0)
    if description.rule == "worst":
        lowest = progress.argmin(axis=0)
        at = np.arange(progress.shape[1])
        said, stages = progress[lowest, at], chances[lowest, at]
    else:
        said = np.clip(progress.mean(axis=0) - description.penalty * spread**2, 0, 1)
        stages = chances.mean(axis=0)
    return Prediction(said.astype(np.float32), stages.astype(np.float32), spread.astype(np.float32))


def member_folder(root: Path, number: int) -> Path:
    """Where a member stands in the ensemble's folder."""
    return root / f"member-{number}"


def fit(request: FitRequest) -> FitResult:
    """Train the members one after the other on the same split; a killed one resumes.

    Raises:
        ConfigError: a setting makes no sense.
    """
    from robo_rm.training.held_out import held_out_figures

    reward = request.reward
    if reward.rule not in RULES or reward.members < 2 or reward.penalty < 0 or reward.member == NAME:
        raise ConfigError(
            f"reward.rule={reward.rule} reward.members={reward.members} reward.penalty={reward.penalty} "
            f"reward.member={reward.member}: need worst or lcb, 2 or more, 0 or more, and a kind that is no ensemble"
        )
    kind = reward_kind(reward.member)
    try:
        settings = kind.settings(**reward.settings)
    except TypeError as error:
        raise ConfigError(f"reward.settings: {str(error).rpartition('.')[2]} of {reward.member}") from error
    split = request.seed if request.split_seed is None else request.split_seed
    results = []
    for number in range(reward.members):
        say(f"member {number + 1} of {reward.members}")
        seed = request.seed + 1000 * number
        folder = member_folder(request.folder, number)
        results.append(kind.fit(replace(request, reward=settings, folder=folder, seed=seed, split_seed=split)))
    members = [result.model for result in results]
    provenance = {
        **{key: value for key, value in members[0].provenance.items() if key not in ("figures", "fingerprint")},
        "member": reward.member,
        "seeds": [request.seed + 1000 * number for number in range(reward.members)],
    }
    ended = {result.model.provenance.get("ended_by") for result in results}
    if MINUTES in ended:
        # One member that was cut off makes a model that the machine's speed decided.
        cut = next(one.provenance for one in members if one.provenance.get("ended_by") == MINUTES)
        provenance |= {name: cut[name] for name in ("ended_by", "steps", "planned_steps")}
    model = EnsembleModel(members, EnsembleDescription(reward.members, reward.rule, reward.penalty), provenance)
    # Whole before it is evaluated: what happens there loses nothing.
    model.save_rule(request.folder, request.config)
    held = [request.store.episode(uuid) for uuid in provenance["holdout_uuids"]]
    metrics: dict[str, Any] = dict(held_out_figures(model, held)) if held else {}
    how_ended: dict[str, Any] = {n: provenance[n] for n in ("ended_by", "steps", "planned_steps") if n in provenance}
    metrics |= {**how_ended, "members": reward.members, "holdout_episodes": len(held)}
    model.provenance = {**provenance, "figures": {k: None if v != v else v for k, v in metrics.items()}}
    model.save_rule(request.folder, request.config)
    return FitResult(model, metrics, already=all(result.already for result in results))


def load(folder: Path, described: Mapping[str, Any], provenance: Mapping[str, Any], device: str) -> EnsembleModel:
    """Read a saved ensemble with its members.

    Raises:
        ModelError: the folder or a member is damaged or missing, or the rule is unknown.
    """
    description = built(EnsembleDescription, described, folder)
    if description.rule not in RULES or description.members < 1:
        raise ModelError(f"{folder} is damaged: rule {description.rule!r}, {description.members} members")
    if _checksums(folder, description.members) != description.checksums:
        raise ModelError(f"{folder}: a member's weights are missing, damaged, or those of another model")
    members = [load_reward_model(member_folder(folder, number), device) for number in range(description.members)]
    return EnsembleModel(members, description, provenance)


def _checksums(folder: Path, members: int) -> list[str]:
    """SHA-256 of each member's weights; empty where a file is missing."""
    paths = [member_folder(folder, number) / WEIGHTS for number in range(members)]
    return [hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "" for path in paths]


KIND = RewardKind(NAME, EnsembleSettings, fit, load)
