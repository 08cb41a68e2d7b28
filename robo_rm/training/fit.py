"""Fitting a stage-aware model to a store: split, priors, training against a budget, checkpoints, the finished
folder."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from robo_datasets.console import progress_bar
from robo_datasets.errors import ConfigError, ModelError, StoreError
from robo_rm.labels.progress import training_priors
from robo_rm.labels.split import labelled_episodes, split_episodes
from robo_rm.models.frames import input_size
from robo_rm.models.saving import PROVENANCE, load_reward_model, read_provenance, save_stage_model
from robo_rm.settings import ConvSettings, OptimiserSettings, StageSettings
from robo_rm.stage.model import StageDescription, StageRewardModel
from robo_rm.stage.trainer import Trainer, read_note
from robo_rm.training.data import TrainingData
from robo_rm.training.held_out import held_out_figures

CHECKPOINT = "checkpoint.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 45.0
STEPS_PER_POINT = 10
# Held-out episodes shown while training; all of them are judged at the end, and none chooses anything.
WATCHED_EPISODES = 3
STATE_KEY = "observation.state"
LOSSES = ("total", "stage", "within", "progress")

# A small store needs more passes: the optimiser has to get somewhere first.
LEAST_STEPS = 300


@dataclass(frozen=True)
class Budget:
    """Training ends after ``steps`` or ``minutes``, whichever comes first; the learning rate falls towards that
    end.

    Where ``steps`` is None, ``passes`` makes them: how often each training frame is supervised, on average. Longer
    training lowers the loss and learns single episodes by heart.
    """

    steps: int | None
    minutes: float | None
    passes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None and self.passes is None:
            raise ConfigError("give passes=..., steps=... or minutes=...; without any, training never ends")
        if any(bound is not None and bound <= 0 for bound in (self.steps, self.minutes, self.passes)):
            raise ConfigError(f"passes={self.passes} steps={self.steps} minutes={self.minutes}: all must be above 0")

    def over(self, frames: int, frames_per_step: int) -> Budget:
        """The budget in steps for a training split of so many frames."""
        if self.steps is not None or self.passes is None:
            return self
        steps = max(LEAST_STEPS, math.ceil(self.passes * frames / frames_per_step))
        return Budget(steps, self.minutes, self.passes)

    def spent(self, steps: int, seconds: float) -> float:
        """Share of the budget that is behind, 1 at the end."""
        by_steps = steps / self.steps if self.steps is not None else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        return max(by_steps, by_time)


@dataclass(frozen=True)
class FitSettings:
    """Everything that decides what model comes out."""

    reward: StageSettings
    encoder: ConvSettings
    optimiser: OptimiserSettings
    budget: Budget
    holdout: int
    seed: int
    cameras: list[str] | None = None


@dataclass
class Fitted:
    """A trained model and how its training went.

    ``curve`` has for every few steps: step, seconds, and the losses total, stage, within and progress; it is empty
    where the folder held the finished model ``already``.
    """

    model: StageRewardModel
    metrics: dict[str, Any]
    curve: list[list[float]] = field(default_factory=list)
    already: bool = False


class Fit:
    """One training run. Making it validates everything and writes nothing; `run` trains.

    Args:
        store: `DemoStore` with stage labels.
        settings: what to train.
        folder: where the model and its checkpoint go.
        device: auto, cpu or cuda.
        cache_gb: memory for decoded training images.
        overwrite: train anew where ``folder`` holds a model of other settings.

    Raises:
        LabelError: the store has no labels.
        ConfigError: a setting does not fit the store.
        ModelError: ``folder`` holds a model or a training of other settings or of other content of the store.
    """

    def __init__(
        self,
        store: Any,
        settings: FitSettings,
        folder: Path,
        device: str = "auto",
        cache_gb: float = 2.0,
        overwrite: bool = False,
    ) -> None:
        check_settings(settings)
        self.store, self.settings, self.folder, self.cache_gb = store, settings, folder, cache_gb
        self.device = pick_device(device)
        self.train, self.held_out = split_episodes(labelled_episodes(store), settings.holdout, settings.seed)
        self.description = describe(store, self.train, settings)
        frames_per_step = settings.optimiser.batch * (settings.reward.history + 1)
        self._budget = settings.budget.over(sum(episode.length for episode in self.train), frames_per_step)
        self.provenance = self._provenance()
        self._standing = self._look_around(overwrite)

    def run(self) -> Fitted:
        """Train, or go on where a killed run stood; a finished model is loaded."""
        if self._standing == "finished":
            model = load_reward_model(self.folder, self.device)
            return Fitted(cast(StageRewardModel, model), dict(model.provenance["figures"]), already=True)
        started = time.monotonic()
        data = self._read()
        with own_random_numbers(self.device):
            trainer = Trainer(self.description, data, self.settings.optimiser, self.settings.seed, self.device)
            curve, seconds, rate = self._train(trainer, started)
        model = StageRewardModel(trainer.averaged, self.description, self.provenance, self.device)
        metrics = {
            **(held_out_figures(model, self.held_out) if self.held_out else {}),
            "loss": curve[-1][2],
            "steps": trainer.steps,
            "train_seconds": seconds,
            "supervised_frames_per_second": rate,
            "train_episodes": len(self.train),
            "holdout_episodes": len(self.held_out),
        }
        figures = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        model.provenance = {**self.provenance, "figures": figures}
        return Fitted(model, metrics, curve)

    def finish(self, fitted: Fitted, settings: dict[str, Any]) -> None:
        """Write the model folder, with the verb's ``settings`` in its config.yaml; remove the checkpoint."""
        save_stage_model(fitted.model, self.folder, settings)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def _read(self) -> TrainingData:
        frames = sum(episode.length for episode in self.train) * len(self.description.cameras)
        with progress_bar("read images", frames, "frames") as bar:
            return TrainingData.load(
                self.train,
                self.description.priors,
                len(self.description.stages),
                self.description.cameras,
                self.description.state_key,
                self.cache_gb * 1e9,
                bar.advance,
            )

    def _train(self, trainer: Trainer, started: float) -> tuple[list[list[float]], float, float]:
        """Step until the budget is spent: loss curve, seconds (killed runs included), supervised frames/s."""
        curve: list[list[float]] = []
        if self._standing == "resume":
            note = trainer.load(self.folder / CHECKPOINT)
            curve, started = note["curve"], time.monotonic() - float(note["seconds"])
        first, began, away = trainer.steps, time.monotonic(), 0.0
        spent, saved, held_out = self._budget.spent(first, began - started), began, ""
        recent: list[list[float]] = []
        with progress_bar("train reward", 100, "%", done=100 * spent) as bar, ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(trainer.batch, first)
            while spent < 1 or not curve:
                batch, coming = coming.result(), ahead.submit(trainer.batch, trainer.steps + 1)
                values = trainer.step(batch, spent)
                recent.append([values[name] for name in LOSSES])
                now = time.monotonic()
                before, spent = spent, min(1.0, self._budget.spent(trainer.steps, now - started))
                if trainer.steps % STEPS_PER_POINT == 0 or spent >= 1:
                    curve.append([trainer.steps, round(now - started, 2), *np.mean(recent, axis=0).tolist()])
                    recent.clear()
                note_text = f"step {trainer.steps}, loss {curve[-1][2]:.3f}{held_out}" if curve else ""
                bar.advance(100 * (spent - before), note_text)
                if now - saved > SECONDS_BETWEEN_CHECKPOINTS and not recent and spent < 1:
                    held_out = self._held_out_note(trainer)
                    seconds = time.monotonic() - started
                    fingerprint = self.provenance["fingerprint"]
                    trainer.save(
                        self.folder / CHECKPOINT, {"seconds": seconds, "curve": curve, "fingerprint": fingerprint}
                    )
                    saved = time.monotonic()
                    away += saved - now
        ended = time.monotonic()
        frames = (trainer.steps - first) * trainer.settings.batch * (self.settings.reward.history + 1)
        return curve, ended - started, frames / max(ended - began - away, 1e-9)

    def _held_out_note(self, trainer: Trainer) -> str:
        if not self.held_out:
            return ""
        averaged = copy.deepcopy(trainer.averaged)
        model = StageRewardModel(averaged, self.description, self.provenance, self.device)
        figures = held_out_figures(model, self.held_out[:WATCHED_EPISODES])
        names = {"mse": "mse", "voc": "voc", "stage_accuracy": "stage"}
        shown = [f"{name} {figures[key]:.3g}" for key, name in names.items() if math.isfinite(figures[key])]
        return f", held out: {' '.join(shown)}" if shown else ""

    def _provenance(self) -> dict[str, Any]:
        from robo_rm import __version__

        store_hash = self.store.content_hash()
        # Everything that decides what model comes out: a folder that was begun with the same is gone on with.
        asked = json.dumps({"settings": asdict(self.settings), "store_hash": store_hash}, sort_keys=True)
        return {
            "train_uuids": [episode.uuid for episode in self.train],
            "holdout_uuids": [episode.uuid for episode in self.held_out],
            "store": str(self.store.path),
            "store_hash": store_hash,
            "priors": list(self.description.priors),
            "fps": self.description.fps,
            "encoder": self.settings.encoder.name,
            "seed": self.settings.seed,
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


def check_settings(settings: FitSettings) -> None:
    """Refuse settings that no store can make sense of.

    Raises:
        ConfigError: names the setting.
    """
    reward, encoder, optimiser = settings.reward, settings.encoder, settings.optimiser
    positive = {
        "reward.history": reward.history,
        "reward.gap_seconds": reward.gap_seconds,
        "reward.layers": reward.layers,
        "reward.heads": reward.heads,
        "encoder.image_size": encoder.image_size,
        "optimiser.batch": optimiser.batch,
        "optimiser.learning_rate": optimiser.learning_rate,
        "encoder.channels": min(encoder.channels, default=0),
    }
    shares = {
        "reward.dropout": reward.dropout,
        "reward.state_dropout": reward.state_dropout,
        "reward.image_dropout": reward.image_dropout,
        "reward.instruction_dropout": reward.instruction_dropout,
        "reward.teacher_forcing": reward.teacher_forcing,
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
    if (reward.name, encoder.name) != ("stage", "conv"):
        raise ConfigError(f"reward.name={reward.name} encoder.name={encoder.name}: only stage and conv are known")
    if encoder.stem < 2 or encoder.stem % 2:
        raise ConfigError(f"encoder.stem={encoder.stem}: give an even number, 2 or more")
    if reward.width % reward.heads:
        raise ConfigError(f"reward.width={reward.width} is not a multiple of reward.heads={reward.heads}")
    if reward.composition not in ("expectation", "argmax"):
        raise ConfigError(f"reward.composition={reward.composition}: expectation or argmax")


def describe(store: Any, train: Sequence[Any], settings: FitSettings) -> StageDescription:
    """The model that the settings make of a store; priors are those of the training split.

    Raises:
        ConfigError: the store has no camera, or not the one asked for.
        StoreError: a camera's images are not colour images of 8 bits.
    """
    images = list(store.cameras)
    chosen = images if settings.cameras is None else [_camera(name, images) for name in settings.cameras]
    if not chosen:
        raise ConfigError(f"{store.path} has no camera; a reward model looks at images (observation.images.<camera>)")
    cameras = {}
    for key in chosen:
        shape = tuple(store.features[key]["shape"])
        if len(shape) != 3 or shape[-1] != 3:
            raise StoreError(f"{store.path}: {key} has shape {shape}; the conv encoder reads colour images (H, W, 3)")
        cameras[key] = input_size(shape[0], shape[1], settings.encoder.image_size)
    state_key = STATE_KEY if settings.reward.use_state and STATE_KEY in store.features else None
    tasks = Counter(episode.task or "" for episode in train)
    return StageDescription(
        stages=list(store.stages),
        priors=training_priors(train, len(store.stages)).tolist(),
        cameras=cameras,
        state_key=state_key,
        state_size=int(store.features[state_key]["shape"][0]) if state_key else 0,
        fps=float(store.fps),
        task=tasks.most_common(1)[0][0],
        reward=settings.reward,
        encoder=settings.encoder,
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


def _camera(name: str, images: Sequence[str]) -> str:
    key = name if name in images else f"observation.images.{name}"
    if key not in images:
        raise ConfigError(f"cameras={name}: the store has {', '.join(images) or 'no camera'}")
    return key
