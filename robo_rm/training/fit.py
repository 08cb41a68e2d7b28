"""Training a reward model of any type on a store: split, budget, resumption, held-out metrics, the finished folder.

A reward model type brings a `Plan` (what its settings make of the training split), which gives the `RewardObjective`
that the engine trains; everything else is here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from robo_core.errors import ModelError
from robo_core.outputs import REWARD_MODEL, OutputFolder
from robo_rm.labels.grouping import GroupedStore, named_groups
from robo_rm.labels.split import labelled_episodes, split_episodes, store_split
from robo_rm.labels.training_overlap import contents
from robo_rm.reward_models.protocol import TrainedModel
from robo_rm.reward_models.registry import FitRequest, FitResult
from robo_rm.reward_models.saving import PROVENANCE, load_reward_model, read_provenance
from robo_rm.scoring import model_hash
from robo_rm.training.budget import MINUTES
from robo_rm.training.callbacks import HeldOut
from robo_rm.training.checkpoint import read_note
from robo_rm.training.device import first_process_first, own_random_numbers, pick_device, process_count, wait_for_all
from robo_rm.training.engine import Callback, Engine, Recipe
from robo_rm.training.held_out import held_out_figures
from robo_rm.training.objective import Batch, Network, RewardObjective
from robo_rm.training.stopping import STEPS_PER_POINT, EarlyStopping, check_validation
from robo_rm.training.summary import Split, check_split, check_states, summarise

CHECKPOINT = "checkpoint.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 45.0
# Held-out episodes evaluated while training; all of them are evaluated at the end, and none chooses anything.
WATCHED_EPISODES = 3


class Plan(Protocol):
    """What the settings make of a store; making it validates them and reads no image."""

    frames_per_step: int
    """Frames supervised in one step."""
    provenance: Mapping[str, Any]
    """What the type adds: ``priors`` (K fractions of the training split) and ``fps`` at least."""
    state_key: str | None
    """Key of the state that the model reads, which is checked before training; None for none."""
    labelled: bool
    """Whether stage labels make the progress."""
    notes: list[str]
    """What should be known before training begins."""

    def objective(self, device: str) -> RewardObjective[Any, Any]:
        """Read the training split and make what is trained."""


Prepare = Callable[[FitRequest, Sequence[Any]], Plan]
"""From what is asked and the training episodes to a plan."""


class Fit:
    """One training run. Making it validates everything and writes nothing; `run` trains.

    Args:
        request: what to train and where to put it.
        prepare: of the reward model type.
        episodes: the episodes of a store that are split; by default those with stage labels.
        learn_from: those of the training split that the type learns from; by default all.

    Raises:
        LabelError: the store has no labels.
        ConfigError: a setting does not fit the store.
        ModelError: the folder holds a model or a training of other settings or of other content of the store.
    """

    def __init__(
        self,
        request: FitRequest,
        prepare: Prepare,
        episodes: Callable[[Any], list[Any]] = labelled_episodes,
        learn_from: Callable[[Sequence[Any]], list[Any]] = list,
    ) -> None:
        if request.stage_groups is not None:
            groups = named_groups(list(request.store.stages), request.stage_groups)
            request = replace(request, store=GroupedStore(request.store, groups))
        self.request, self.folder = request, request.folder
        self.device = pick_device(request.device)
        used = episodes(request.store)
        train, self.held_out = store_split(
            request.store,
            used,
            request.holdout,
            request.seed if request.split_seed is None else request.split_seed,
        )
        self.validation: list[Any] = []
        if request.validation:
            train, self.validation = split_episodes(train, request.validation, request.seed + 1, "validation")
            check_validation(self.validation, request.patience)
        self.train = learn_from(train)
        self.plan = prepare(request, self.train)
        self.split = self._split(used, train)
        check_split(self.split, request.store, request.holdout)
        self._states = check_states(
            request.store, self.plan.state_key, self.train, [*self.held_out, *self.split.validation]
        )
        frames = sum(episode.length for episode in self.train)
        self._frames_per_step = self.plan.frames_per_step * process_count()
        self._budget = request.budget.over(frames, self._frames_per_step)
        self.provenance = self._provenance()
        self._standing = self._look_around(request.overwrite)

    def run(self) -> FitResult:
        """Train, or go on where a killed run stood, and write the folder; a finished model is loaded.

        The model is written before it is evaluated: what happens in the evaluation loses nothing.
        """
        if self._standing == "finished":
            kept = load_reward_model(self.folder, self.device)
            return FitResult(kept, dict(kept.provenance["figures"]), already=True)
        with first_process_first():
            OutputFolder(self.folder, holds=REWARD_MODEL)
        if self.request.split_seed in (None, self.request.seed):
            self.summarise()
        with own_random_numbers(self.device):
            return self._train()

    def summarise(self) -> None:
        """Print what is about to be learned from."""
        notes = [*self.plan.notes, *([self._states] if self._states else [])]
        summarise(self.split, list(self.request.store.stages), notes).show()

    def _split(self, used: Sequence[Any], train: Sequence[Any]) -> Split:
        """The store's episodes by what becomes of them: ``used`` by this kind of model, ``train`` of them to learn
        from, of which the kind takes what it can."""
        known, learned = {episode.uuid for episode in used}, {episode.uuid for episode in self.train}
        out = [episode for episode in self.request.store if episode.uuid not in known]
        labelled = self.plan.labelled
        return Split(
            self.train,
            self.held_out,
            self.validation,
            out if labelled else (),
            [
                *(() if labelled else (episode for episode in out if episode.success is False)),
                *(episode for episode in train if episode.uuid not in learned and episode.success is not None),
            ],
            labelled,
            [episode for episode in train if episode.uuid not in learned and episode.success is None],
        )

    def _train(self) -> FitResult:
        objective = self.plan.objective(self.device)
        recipe = Recipe(self._budget, self.request.optimiser.average, checkpoint_seconds=SECONDS_BETWEEN_CHECKPOINTS)
        engine = Engine(objective, recipe, self.device)
        held_out = HeldOut(lambda: self._watch(objective))
        stopping = None
        if self.validation:
            stopping = EarlyStopping(
                lambda: held_out_figures(objective.model(self.provenance), self.validation),
                self.request.patience,
                self.folder,
            )
        checkpoint = self.folder / CHECKPOINT
        if self._standing == "fresh" and engine.main:
            checkpoint.unlink(missing_ok=True)
            if stopping is not None:
                stopping.forget()
        wait_for_all()
        callbacks: list[Callback] = [held_out] if self.held_out else []
        if stopping is not None:
            callbacks.append(stopping)
        engine.fit(checkpoint, "train reward", {"fingerprint": self.provenance["fingerprint"]}, callbacks)
        ended = {"ended_by": engine.ended_by, "steps": engine.steps, "planned_steps": self._budget.total}
        if stopping is not None:
            ended["best_step"] = stopping.take_best(engine)
        engine.finish()
        result = self._finish(engine, objective, ended, held_out.rows)
        if engine.ended_by != MINUTES and engine.main:
            # What was cut off can be resumed.
            checkpoint.unlink(missing_ok=True)
            if stopping is not None:
                stopping.forget()
        wait_for_all()
        return result

    def _finish(
        self,
        engine: Engine[Batch],
        objective: RewardObjective[Batch, Network],
        ended: Mapping[str, Any],
        watched: list[list[float]],
    ) -> FitResult:
        """Write the folder, evaluate the model, write it again with its metrics."""
        provenance, curve = {**self.provenance, **ended}, engine.curve(STEPS_PER_POINT)
        model = objective.model(provenance)
        self._save(engine, model)
        metrics: dict[str, Any] = {
            **(held_out_figures(model, self.held_out) if self.held_out else {}),
            "loss": curve[-1][2],
            **ended,
            "train_seconds": engine.seconds,
            "supervised_frames_per_second": engine.steps * self._frames_per_step / max(engine.step_seconds, 1e-9),
            "train_episodes": len(self.train),
            "holdout_episodes": len(self.held_out),
        }
        figures = {name: None if _not_finite(value) else value for name, value in metrics.items()}
        model = objective.model({**provenance, "figures": figures})
        self._save(engine, model)
        return FitResult(model, metrics, curve, objective.losses, held_out=watched)

    def _save(self, engine: Engine[Batch], model: TrainedModel) -> None:
        if engine.main:
            model.save(self.folder, self.request.config)

    def _watch(self, objective: RewardObjective[Batch, Network]) -> tuple[float, str]:
        """Squared error on some held-out episodes, and what the progress bar shows of them."""
        figures = held_out_figures(objective.model(self.provenance), self.held_out[:WATCHED_EPISODES])
        names = {"mse": "mse", "voc": "voc", "stage_accuracy": "stage"}
        shown = [f"{name} {figures[key]:.3g}" for key, name in names.items() if math.isfinite(figures[key])]
        # The table at the end measures the finished model on all of them: other numbers.
        count = min(WATCHED_EPISODES, len(self.held_out))
        return figures["mse"], f"meanwhile on {count} held-out episodes: {' '.join(shown)}" if shown else ""

    def _provenance(self) -> dict[str, Any]:
        from robo_rm import __version__

        request = self.request
        groups = None if request.stage_groups is None else request.store.groups
        store_hash = request.store.content_hash()
        # Everything that decides what model comes out: a folder that was begun with the same is gone on with.
        settings = {
            # A setting that came later does not make another model of what was trained before it.
            "reward": {k: v for k, v in asdict(request.reward).items() if (k, v) != ("sparse", None)},
            "encoder": asdict(request.encoder),
            "optimiser": asdict(request.optimiser),
            # A cap in minutes cuts a training off; it does not make another one.
            "budget": {"steps": request.budget.steps, "passes": request.budget.passes},
            "holdout": request.holdout,
            "seed": request.seed,
            "cameras": request.cameras,
            **({"split_seed": request.split_seed} if request.split_seed is not None else {}),
            **({"stage_groups": groups} if groups else {}),
            **({"repeats": request.repeats} if request.repeats != "error" else {}),
            **({"validation": [request.validation, request.patience]} if request.validation else {}),
            **({"init": model_hash(request.init)} if request.init is not None else {}),
        }
        asked = json.dumps({"settings": settings, "store_hash": store_hash}, sort_keys=True)
        return {
            "train_uuids": [episode.uuid for episode in self.train],
            "holdout_uuids": [episode.uuid for episode in self.held_out],
            **({"validation_uuids": [e.uuid for e in self.validation]} if self.validation else {}),
            **contents(request.store, [*self.train, *self.validation]),
            "store": str(request.store.path),
            "store_hash": store_hash,
            "contract_hash": request.store.contract_hash,
            "contract": request.store.contract,
            **({"stage_groups": groups} if groups else {}),
            **self.plan.provenance,
            "seed": request.seed,
            "code_version": __version__,
            "fingerprint": hashlib.sha256(asked.encode()).hexdigest(),
        }

    def _look_around(self, overwrite: bool) -> str:
        """fresh, resume or finished, by what the folder holds."""
        checkpoint, provenance = self.folder / CHECKPOINT, self.folder / PROVENANCE
        if checkpoint.exists():
            standing, held = "resume", read_note(checkpoint).get("fingerprint")
        elif provenance.exists():
            standing, held = "finished", read_provenance(self.folder).get("fingerprint")
        else:
            return "fresh"
        if held == self.provenance["fingerprint"]:
            return standing
        if overwrite:
            return "fresh"
        raise ModelError(
            f"{self.folder} holds a model or a training with other settings, or of a store that has changed since; "
            "give another out=, or overwrite=true to train again"
        )


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
