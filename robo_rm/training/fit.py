"""Training a model of any kind on a store: split, budget, checkpoints, resumption, held-out figures, the finished
folder.

A kind brings a `Plan` (what its settings make of the training split) and a `Trainer`; everything else is here.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from robo_core.console import progress_bar, say
from robo_core.errors import ConfigError, ModelError
from robo_core.outputs import REWARD_MODEL, OutputFolder
from robo_rm.labels.grouping import GroupedStore, named_groups
from robo_rm.labels.split import labelled_episodes, split_episodes, store_split
from robo_rm.labels.training_overlap import contents
from robo_rm.reward_models.base import RewardModel
from robo_rm.reward_models.registry import FitRequest, FitResult
from robo_rm.reward_models.saving import PROVENANCE, load_reward_model, read_provenance
from robo_rm.scoring import model_hash
from robo_rm.training.budget import EARLY_STOPPING, MINUTES, STEPS, cut_off_warning
from robo_rm.training.held_out import held_out_figures
from robo_rm.training.stopping import EarlyStopping
from robo_rm.training.summary import Split, check_split, check_states, summarise
from robo_rm.training.trainer import read_note

CHECKPOINT = "checkpoint.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 45.0
STEPS_PER_POINT = 10
# Held-out episodes shown while training, each tenth of the steps; all of them are judged at the end, and none chooses
# anything.
WATCHED_EPISODES = 3
LOOKS = 10


class TrainedModel(RewardModel, Protocol):
    """A reward model whose folder can also hold the settings it was trained with."""

    def save(self, folder: Any, settings: Mapping[str, Any] | None = None) -> None:
        """Write the model folder; ``settings`` are further sections of its config.yaml."""


class Trainer(Protocol):
    """A model in training; `robo_rm.training.trainer.NetworkTrainer` is one but for `model`."""

    steps: int
    """Steps done."""
    losses: tuple[str, ...]
    """Names of what `step` returns, ``total`` first."""

    def batch(self, step: int) -> Any:
        """The batch of a step; made in a thread ahead of time, so it depends on the seed and the step alone."""

    def step(self, batch: Any, fraction: float) -> dict[str, float]:
        """Train on a batch at the share ``fraction`` of the whole training."""

    def save(self, path: Path, note: Mapping[str, Any]) -> None:
        """Write a checkpoint with a note of plain JSON."""

    def load(self, path: Path) -> dict[str, Any]:
        """Go on from a checkpoint; returns its note."""

    def model(self, provenance: Mapping[str, Any]) -> TrainedModel:
        """The model as it is now, apart from further training."""


class Plan(Protocol):
    """What the settings make of a store; making it validates them and reads no image."""

    frames_per_step: int
    """Frames supervised in one step."""
    provenance: Mapping[str, Any]
    """What the kind adds: ``priors`` (K shares of the training split) and ``fps`` at least."""
    state_key: str | None
    """Key of the state that the model reads, which is checked before training; None for none."""
    labelled: bool
    """Whether stage labels make the progress."""
    notes: list[str]
    """What should be known before training begins."""

    def trainer(self, device: str) -> Trainer:
        """Read the training split and make the trainer."""


Prepare = Callable[[FitRequest, Sequence[Any]], Plan]
"""From what is asked and the training episodes to a plan."""


@dataclass
class _Progress:
    """How far a training has come.

    Attributes:
        curve: rows of step, seconds and losses.
        watched: rows of step and squared error of progress on some held-out episodes.
        ended_by: steps, early_stopping or minutes; empty while it goes on.
        seconds: of training, killed runs included.
        rate: supervised frames per second.
    """

    curve: list[list[float]] = field(default_factory=list)
    watched: list[list[float]] = field(default_factory=list)
    ended_by: str = ""
    seconds: float = 0.0
    rate: float = 0.0


class Fit:
    """One training run. Making it validates everything and writes nothing; `run` trains.

    Args:
        request: what to train and where to put it.
        prepare: of the kind.
        episodes: the episodes of a store that are split; by default those with stage labels.
        learn_from: those of the training split that the kind learns from; by default all.

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
        self.stopping: EarlyStopping | None = None
        if request.validation:
            train, watched = split_episodes(train, request.validation, request.seed + 1, "validation")
            self.stopping = EarlyStopping(watched, request.patience, self.folder)
        self.train = learn_from(train)
        self.plan = prepare(request, self.train)
        self.split = self._split(used, train)
        check_split(self.split, request.store, request.holdout)
        self._states = check_states(
            request.store, self.plan.state_key, self.train, [*self.held_out, *self.split.validation]
        )
        frames = sum(episode.length for episode in self.train)
        self._budget = request.budget.over(frames, self.plan.frames_per_step)
        self.provenance = self._provenance()
        self._standing = self._look_around(request.overwrite)

    def run(self) -> FitResult:
        """Train, or go on where a killed run stood, and write the folder; a finished model is loaded.

        The model is written before it is evaluated: what happens in the evaluation loses nothing.
        """
        if self._standing == "finished":
            kept = load_reward_model(self.folder, self.device)
            return FitResult(kept, dict(kept.provenance["figures"]), already=True)
        OutputFolder(self.folder, holds=REWARD_MODEL)
        if self.request.split_seed in (None, self.request.seed):
            self.summarise()
        started = time.monotonic()
        with own_random_numbers(self.device):
            trainer = self.plan.trainer(self.device)
            progress = self._train(trainer, started)
        steps = int(progress.curve[-1][0])
        ended = {"ended_by": progress.ended_by, "steps": steps, "planned_steps": self._budget.total}
        if self.stopping is not None:
            ended["best_step"] = trainer.steps
        if progress.ended_by == MINUTES:
            assert self._budget.minutes is not None
            say(f"warning: {cut_off_warning(self._budget.minutes, steps, self._budget.total)}")
        provenance = {**self.provenance, **ended}
        trainer.model(provenance).save(self.folder, self.request.config)
        metrics: dict[str, Any] = {
            **(held_out_figures(trainer.model(provenance), self.held_out) if self.held_out else {}),
            "loss": progress.curve[-1][2],
            **ended,
            "train_seconds": progress.seconds,
            "supervised_frames_per_second": progress.rate,
            "train_episodes": len(self.train),
            "holdout_episodes": len(self.held_out),
        }
        figures = {name: None if _not_finite(value) else value for name, value in metrics.items()}
        model = trainer.model({**provenance, "figures": figures})
        model.save(self.folder, self.request.config)
        if progress.ended_by != MINUTES:
            # What was cut off can be gone on with.
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
            if self.stopping is not None:
                self.stopping.forget()
        return FitResult(model, metrics, progress.curve, trainer.losses, held_out=progress.watched)

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
            self.stopping.episodes if self.stopping is not None else (),
            out if labelled else (),
            [
                *(() if labelled else (episode for episode in out if episode.success is False)),
                *(episode for episode in train if episode.uuid not in learned and episode.success is not None),
            ],
            labelled,
            [episode for episode in train if episode.uuid not in learned and episode.success is None],
        )

    def _train(self, trainer: Trainer, started: float) -> _Progress:
        """Step until the steps are done, early stopping ends them or the cap in minutes cuts them off."""
        done = _Progress()
        if self._standing == "fresh" and self.stopping is not None:
            self.stopping.forget()
        if self._standing == "resume":
            note = trainer.load(self.folder / CHECKPOINT)
            if self.stopping is not None:
                self.stopping.restore(note["stopping"])
            done.curve, done.watched = note["curve"], note["watched"]
            started = time.monotonic() - float(note["seconds"])
            # One that was cut off goes on where the cap allows it; one that was through is only evaluated again.
            done.ended_by = note["ended_by"] if note["ended_by"] != MINUTES else ""
        budget, first, began = self._budget, trainer.steps, time.monotonic()
        saved, away, shown = began, 0.0, ""
        recent: list[list[float]] = []
        with progress_bar("train reward", budget.total, "steps", done=first) as bar, ThreadPoolExecutor(1) as ahead:
            coming = None if done.ended_by else ahead.submit(trainer.batch, first)
            while coming is not None and not done.ended_by:
                batch, coming = coming.result(), ahead.submit(trainer.batch, trainer.steps + 1)
                values = trainer.step(batch, budget.spent(trainer.steps))
                recent.append([values[name] for name in trainer.losses])
                now = time.monotonic()
                spent = budget.spent(trainer.steps)
                if spent >= 1:
                    done.ended_by = STEPS
                elif budget.cut_off(now - started):
                    done.ended_by = MINUTES
                if trainer.steps % STEPS_PER_POINT == 0 or done.ended_by:
                    done.curve.append([trainer.steps, round(now - started, 2), *np.mean(recent, axis=0).tolist()])
                    recent.clear()
                if self._due(trainer.steps, done):
                    shown = self._watch(trainer, done)
                if self._stops_early(trainer, spent, not recent) and not done.ended_by:
                    done.ended_by = EARLY_STOPPING
                loss = f"loss {done.curve[-1][2]:.3f}{shown}" if done.curve else ""
                bar.advance(1, loss)
                away += time.monotonic() - now
                if done.ended_by or (time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS and not recent):
                    done.seconds = time.monotonic() - started
                    self._checkpoint(trainer, done)
                    away += time.monotonic() - started - done.seconds
                    saved = time.monotonic()
        frames = (trainer.steps - first) * self.plan.frames_per_step
        done.seconds = time.monotonic() - started
        done.rate = frames / max(time.monotonic() - began - away, 1e-9)
        if self.stopping is not None:
            self.stopping.go_back(trainer)
        return done

    def _stops_early(self, trainer: Trainer, spent: float, at_point: bool) -> bool:
        """Whether validation episodes were looked at and end the training."""
        if self.stopping is None or not at_point or not self.stopping.due(spent):
            return False
        return self.stopping.look(trainer, self.provenance, spent)

    def _checkpoint(self, trainer: Trainer, done: _Progress) -> None:
        """Everything that the rest of the run depends on."""
        note: dict[str, Any] = {
            "seconds": done.seconds,
            "curve": done.curve,
            "watched": done.watched,
            "ended_by": done.ended_by,
            "fingerprint": self.provenance["fingerprint"],
        }
        if self.stopping is not None:
            note["stopping"] = self.stopping.state()
        trainer.save(self.folder / CHECKPOINT, note)

    def _due(self, steps: int, done: _Progress) -> bool:
        """Whether to look at held-out episodes after so many steps: by steps, so that it is the same on any machine."""
        total = self._budget.total
        look = steps * LOOKS // total
        return bool(self.held_out) and (bool(done.ended_by) or look > (steps - 1) * LOOKS // total)

    def _watch(self, trainer: Trainer, done: _Progress) -> str:
        """Look at some held-out episodes; returns a word for the progress bar."""
        figures = held_out_figures(trainer.model(self.provenance), self.held_out[:WATCHED_EPISODES])
        if math.isfinite(figures["mse"]):
            done.watched.append([trainer.steps, figures["mse"]])
        names = {"mse": "mse", "voc": "voc", "stage_accuracy": "stage"}
        shown = [f"{name} {figures[key]:.3g}" for key, name in names.items() if math.isfinite(figures[key])]
        return f", held out: {' '.join(shown)}" if shown else ""

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
            **({"validation_uuids": [e.uuid for e in self.stopping.episodes]} if self.stopping is not None else {}),
            **contents(request.store, [*self.train, *([] if self.stopping is None else self.stopping.episodes)]),
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
            "give another out=, or overwrite=true to train anew"
        )


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def pick_device(device: str) -> str:
    """cuda where asked for or, with auto, where there is one; else cpu.

    Raises:
        ConfigError: an unknown device, or cuda without a GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={device}: auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but PyTorch finds no GPU here; use device=auto")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def own_random_numbers(device: str) -> Iterator[None]:
    """Leave the caller's torch random numbers as they were."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        yield
