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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from robo_datasets.console import progress_bar
from robo_datasets.errors import ConfigError, ModelError
from robo_datasets.outputs import OutputFolder
from robo_rm.labels.grouping import GroupedStore, named_groups
from robo_rm.labels.seen import contents
from robo_rm.labels.split import labelled_episodes, split_episodes, store_split
from robo_rm.models.protocol import RewardModel
from robo_rm.models.registry import FitRequest, FitResult
from robo_rm.models.saving import PROVENANCE, load_reward_model, read_provenance
from robo_rm.scoring import model_hash
from robo_rm.training.held_out import held_out_figures
from robo_rm.training.stopping import EarlyStopping
from robo_rm.training.trainer import read_note

CHECKPOINT = "checkpoint.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 45.0
STEPS_PER_POINT = 10
# Held-out episodes shown while training; all of them are judged at the end, and none chooses anything.
WATCHED_EPISODES = 3


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

    def trainer(self, device: str) -> Trainer:
        """Read the training split and make the trainer."""


Prepare = Callable[[FitRequest, Sequence[Any]], Plan]
"""From what is asked and the training episodes to a plan."""


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
        train, self.held_out = store_split(
            request.store,
            episodes(request.store),
            request.holdout,
            request.seed if request.split_seed is None else request.split_seed,
        )
        self.stopping: EarlyStopping | None = None
        if request.validation:
            train, watched = split_episodes(train, request.validation, request.seed + 1)
            self.stopping = EarlyStopping(watched, request.patience, self.folder)
        self.train = learn_from(train)
        self.plan = prepare(request, self.train)
        frames = sum(episode.length for episode in self.train)
        self._budget = request.budget.over(frames, self.plan.frames_per_step)
        self.provenance = self._provenance()
        self._standing = self._look_around(request.overwrite)

    def run(self) -> FitResult:
        """Train, or go on where a killed run stood, and write the folder; a finished model is loaded."""
        if self._standing == "finished":
            kept = load_reward_model(self.folder, self.device)
            return FitResult(kept, dict(kept.provenance["figures"]), already=True)
        OutputFolder(self.folder)
        started = time.monotonic()
        with own_random_numbers(self.device):
            trainer = self.plan.trainer(self.device)
            curve, seconds, rate = self._train(trainer, started)
        metrics = {
            **(held_out_figures(trainer.model(self.provenance), self.held_out) if self.held_out else {}),
            "loss": curve[-1][2],
            "steps": trainer.steps,
            "train_seconds": seconds,
            "supervised_frames_per_second": rate,
            "train_episodes": len(self.train),
            "holdout_episodes": len(self.held_out),
        }
        figures = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        model = trainer.model({**self.provenance, "figures": figures})
        model.save(self.folder, self.request.config)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return FitResult(model, metrics, curve, trainer.losses)

    def _train(self, trainer: Trainer, started: float) -> tuple[list[list[float]], float, float]:
        """Step until the budget is spent: loss curve, seconds (killed runs included), supervised frames/s."""
        curve: list[list[float]] = []
        if self._standing == "resume":
            note = trainer.load(self.folder / CHECKPOINT)
            if self.stopping is not None:
                self.stopping.restore(note["stopping"])
            curve, started = note["curve"], time.monotonic() - float(note["seconds"])
        first, began, away = trainer.steps, time.monotonic(), 0.0
        spent, saved, held_out = self._budget.spent(first, began - started), began, ""
        recent: list[list[float]] = []
        with progress_bar("train reward", 100, "%", done=100 * spent) as bar, ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(trainer.batch, first)
            stop = False
            while not stop and (spent < 1 or not curve):
                batch, coming = coming.result(), ahead.submit(trainer.batch, trainer.steps + 1)
                values = trainer.step(batch, spent)
                recent.append([values[name] for name in trainer.losses])
                now = time.monotonic()
                before, spent = spent, min(1.0, self._budget.spent(trainer.steps, now - started))
                if trainer.steps % STEPS_PER_POINT == 0 or spent >= 1:
                    curve.append([trainer.steps, round(now - started, 2), *np.mean(recent, axis=0).tolist()])
                    recent.clear()
                if self.stopping is not None and not recent and curve and self.stopping.due(spent):
                    stop = self.stopping.look(trainer, self.provenance, spent)
                note_text = f"step {trainer.steps}, loss {curve[-1][2]:.3f}{held_out}" if curve else ""
                bar.advance(100 * (spent - before), note_text)
                if now - saved > SECONDS_BETWEEN_CHECKPOINTS and not recent and spent < 1:
                    held_out = self._held_out_note(trainer)
                    seconds = time.monotonic() - started
                    held: dict[str, Any] = {"seconds": seconds, "curve": curve}
                    held["fingerprint"] = self.provenance["fingerprint"]
                    if self.stopping is not None:
                        held["stopping"] = self.stopping.state()
                    trainer.save(self.folder / CHECKPOINT, held)
                    saved = time.monotonic()
                    away += saved - now
        ended = time.monotonic()
        frames = (trainer.steps - first) * self.plan.frames_per_step
        if self.stopping is not None:
            self.stopping.go_back(trainer)
        return curve, ended - started, frames / max(ended - began - away, 1e-9)

    def _held_out_note(self, trainer: Trainer) -> str:
        if not self.held_out:
            return ""
        figures = held_out_figures(trainer.model(self.provenance), self.held_out[:WATCHED_EPISODES])
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
            "budget": asdict(request.budget),
            "holdout": request.holdout,
            "seed": request.seed,
            "cameras": request.cameras,
            **({"split_seed": request.split_seed} if request.split_seed is not None else {}),
            **({"stage_groups": groups} if groups else {}),
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
