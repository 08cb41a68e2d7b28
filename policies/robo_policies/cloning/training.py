"""From a demo store to a policy folder: what `robo-rm train-policy` does, as one function."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from robo_core.console import say
from robo_core.errors import ConfigError, StoreError
from robo_core.outputs import POLICY, OutputFolder
from robo_policies.cloning.checkpoint import CARD, policy_files, read_card, write_card
from robo_policies.cloning.holdout import held_out_errors, hold_out
from robo_policies.cloning.images import Pictures, pick_cameras
from robo_policies.cloning.learned import LearnedPolicy, load_learned_policy
from robo_policies.cloning.learner import Learner
from robo_policies.cloning.learners import make_learner
from robo_policies.cloning.sample_weights import SampleWeights, effective_samples, sample_weights, weight_warnings
from robo_policies.cloning.settings import (
    ActSettings,
    CloningSettings,
    DiffusionSettings,
    PolicySettings,
    WeightSettings,
)
from robo_policies.cloning.start_poses import start_poses
from robo_policies.cloning.summary import check_cloning_split, summarise_cloning
from robo_policies.cloning.trainer import CHECKPOINT, CloningResult, check_fingerprint, clone
from robo_policies.cloning.windows import (
    ACTION,
    ENVIRONMENT_STATE,
    STATE,
    Demonstrations,
    Windows,
    constant_dimensions,
    for_inference,
    load_demonstrations,
    normalisation,
)
from robo_policies.feature_names import NamesError, flat_names
from robo_rm.training.budget import MINUTES, Budget
from robo_rm.training.device import first_process_first, pick_device, process_count, process_index, wait_for_all

if TYPE_CHECKING:
    from robo_datasets import DemoStore

TRAINING_FOLDER = "training"
# Held-out frames whose loss is followed while training.
WATCHED_FRAMES, WATCHED_BATCH = 128, 64
NOT_IN_THE_RESULT = ("checkpoint_seconds", "cache_gb")


@dataclass(frozen=True)
class TrainedPolicy:
    """A policy and how it was made.

    Attributes:
        policy: loaded back from its folder.
        metrics: flat figures for ``metrics.json``.
        losses: (steps,) float32, the weighted loss of each step.
        resumed: whether the folder already held this very policy and nothing was trained.
        held_out: rows of step and loss on held-out frames.
    """

    policy: LearnedPolicy
    metrics: dict[str, Any]
    losses: np.ndarray
    resumed: bool
    held_out: list[list[float]] = field(default_factory=list)


def train_policy(
    store: DemoStore,
    out: Path,
    budget: Budget,
    policy: PolicySettings | None = None,
    weights: WeightSettings | None = None,
    training: CloningSettings | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    holdout: float = 0,
    title: str = "train policy",
) -> TrainedPolicy:
    """Clone the demonstrations of ``store`` into a policy in the folder ``out``.

    The same call after an interruption resumes; after the end it returns what is there.

    Args:
        store: demonstrations with ``action``, and ``observation.environment_state`` or cameras; ``observation.state``
            where it has it.
        out: the policy's folder, in LeRobot's own layout.
        budget: steps or passes, and a cap in minutes.
        policy: which policy, its cameras and the shape of its network.
        weights: where sample weights come from.
        training: optimiser settings.
        seed: names initial weights, order and noise.
        device: auto, cpu or cuda.
        overwrite: delete what an earlier run with other settings left in ``out``.
        holdout: episodes that are not trained on, a number or a share, drawn by ``seed``; the error of the actions on
            them is measured.
        title: what the progress bar says.

    Raises:
        ConfigError: a setting is out of range, or ``out`` holds a run with other settings.
        StoreError: the store lacks frames, keys or weights.
        ModelError: the loss is not finite, or a file of an earlier run is damaged.
        MissingPartError: LeRobot is not installed.
    """
    policy, weights, training = policy or ActSettings(), weights or WeightSettings(), training or CloningSettings()
    for settings in (policy, weights, training):
        settings.validate()
    device = pick_device(device)
    demonstrations = load_demonstrations(store)
    sampled = sample_weights(store, demonstrations, weights)
    held = hold_out(store, demonstrations, holdout, seed)
    trained = np.where(held, 0, sampled.values).astype(np.float32)
    if not trained.any():
        raise StoreError(f"{store.path}: nothing with a weight is left once holdout={holdout:g} is held out")
    dims = {key: values.shape[1] for key, values in demonstrations.arrays.items()}
    if isinstance(policy, DiffusionSettings) and STATE not in dims:
        raise ConfigError(
            f"{store.path} has no {STATE}, and LeRobot's diffusion network always reads one; policy=act learns from "
            "cameras alone"
        )
    cameras = pick_cameras(store, policy.cameras, policy.image_size, ENVIRONMENT_STATE in dims)
    budget = budget.over(int(np.count_nonzero(trained)), training.batch_size * process_count())
    fingerprint = {
        **cloning_fingerprint(demonstrations, sampled, budget, training, seed),
        "policy": dataclasses.asdict(policy),
        "holdout": holdout,
    }
    check_cloning_split(store, demonstrations, trained, held, holdout)
    if overwrite and out.is_dir():
        _clear(out)
    finished = _finished(out, fingerprint)
    if finished is not None:
        return finished

    still = constant_dimensions(demonstrations, trained)
    summarise_cloning(store, demonstrations, trained, held, weights, still)
    with first_process_first():
        OutputFolder(out, holds=POLICY)
    for warning in weight_warnings(store, demonstrations, sampled):
        say(f"warning: {warning}")
    torch.manual_seed(seed)
    learner = make_learner(policy, dims, cameras, device)
    pictures = None
    if cameras:
        pictures = Pictures(store, demonstrations.uuids, demonstrations.starts, cameras, training.cache_gb)
    statistics = normalisation(demonstrations, trained, pictures)
    windows = Windows(demonstrations, trained, learner.span, statistics, device, pictures, policy.shift)
    watch = None
    if held.any():
        watch = _held_out_loss(learner, demonstrations, held, statistics, device, pictures)
    result = clone(
        learner,
        windows,
        budget,
        training,
        seed,
        out / TRAINING_FOLDER,
        fingerprint,
        device,
        title=title,
        held_out=watch,
    )
    if process_index() == 0:
        learner.save(out, for_inference(statistics, still))
        np.save(out / TRAINING_FOLDER / "losses.npy", result.losses)
        np.save(out / TRAINING_FOLDER / "held_out.npy", np.array(result.held_out, np.float64).reshape(-1, 2))
        metrics = _metrics(result, windows, effective_samples(trained), demonstrations.frames, training.batch_size)
        metrics["planned_steps"] = budget.total
        card = {
            **_card(store, demonstrations, held, policy),
            "cameras": {key: list(size) for key, size in cameras.items()},
            "trained_with": json.loads(json.dumps(fingerprint)),
            "constant": {key: np.flatnonzero(mask).tolist() for key, mask in still.items()},
        }
        # Whole before it is evaluated: what happens there loses nothing, and the same command only evaluates again.
        write_card(out, card | {"metrics": metrics})
        if held.any():
            weighed = sampled.values if weights.mode == "rabc" else None
            metrics |= held_out_errors(
                load_learned_policy(out, device), demonstrations, held, statistics, pictures, weighed
            )
            write_card(out, card | {"metrics": metrics})
        if result.ended_by != MINUTES:
            # A run that was cut off can be resumed.
            (out / TRAINING_FOLDER / CHECKPOINT).unlink(missing_ok=True)
    wait_for_all()
    trained_policy = load_learned_policy(out, device)
    return TrainedPolicy(trained_policy, trained_policy.card["metrics"], result.losses, False, result.held_out)


def _card(store: DemoStore, demonstrations: Demonstrations, held: np.ndarray, policy: PolicySettings) -> dict[str, Any]:
    """What the policy's card says of its data and of how it is carried out."""
    return {
        "policy": policy.name,
        "task": demonstrations.task,
        "fps": demonstrations.fps,
        "dims": {key: values.shape[1] for key, values in demonstrations.arrays.items()},
        "actions": _names(store, ACTION),
        "state": _names(store, STATE) if STATE in store.features else None,
        "start_poses": start_poses(store, demonstrations),
        "chunk_size": policy.chunk_size,
        "execution_horizon": policy.execution_horizon,
        "store": {
            "path": str(store.path),
            "content_hash": demonstrations.content_hash,
            "episodes": len(demonstrations.uuids),
            "robot": store.robot,
            "contract_hash": store.contract_hash,
            "contract": store.contract,
            "held_out": [
                uuid for uuid, first in zip(demonstrations.uuids, demonstrations.starts, strict=False) if held[first]
            ],
        },
        "versions": {name: version(name) for name in ("robo-rm", "lerobot", "torch")},
    }


def cloning_fingerprint(
    demonstrations: Demonstrations, sampled: SampleWeights, budget: Budget, training: CloningSettings, seed: int
) -> dict[str, Any]:
    """What the result of a training depends on, besides the policy."""
    return {
        "store": demonstrations.content_hash,
        "weights": sampled.provenance,
        "weights_hash": hashlib.sha256(sampled.values.tobytes()).hexdigest(),
        # A cap in minutes cuts a run off; it does not make another one.
        "steps": budget.steps,
        **{key: value for key, value in dataclasses.asdict(training).items() if key not in NOT_IN_THE_RESULT},
        "seed": seed,
    }


def _metrics(result: CloningResult, windows: Windows, effective: float, frames: int, batch_size: int) -> dict[str, Any]:
    steps = len(result.losses)
    return {
        "steps": steps,
        "ended_by": result.ended_by,
        "loss": float(result.losses[-max(1, steps // 20) :].mean()),
        "seconds": round(result.seconds, 2),
        "samples_per_second": round(steps * batch_size / max(result.seconds, 1e-9), 1),
        "frames": frames,
        "frames_used": len(windows),
        "effective_samples": round(effective, 1),
    }


def _names(store: DemoStore, key: str) -> Any:
    """Names of a feature's values, in their order; as the store has them where their form is unknown."""
    given = store.features[key].get("names")
    try:
        names = flat_names(given)
    except NamesError:
        return given
    return None if names is None else list(names)


def _finished(out: Path, fingerprint: dict[str, Any]) -> TrainedPolicy | None:
    """The policy in ``out`` where it is complete and is the one asked for."""
    if not out.is_dir():
        return None
    card = read_card(out)
    if card is None:
        if (out / "config.json").exists() and not (out / TRAINING_FOLDER).is_dir():
            raise ConfigError(f"{out} holds a policy that was not trained here; give another out=, or overwrite=true")
        return None
    check_fingerprint(card["trained_with"], fingerprint, out)
    if (out / TRAINING_FOLDER / CHECKPOINT).exists():
        # Cut off by its cap, or not evaluated to the end.
        return None
    losses, held_out = (
        np.load(out / TRAINING_FOLDER / f"{name}.npy", allow_pickle=False) for name in ("losses", "held_out")
    )
    return TrainedPolicy(load_learned_policy(out), card["metrics"], losses, resumed=True, held_out=held_out.tolist())


def _held_out_loss(
    learner: Learner,
    demonstrations: Demonstrations,
    held: np.ndarray,
    statistics: Mapping[str, Mapping[str, np.ndarray]],
    device: str,
    pictures: Pictures | None,
) -> Callable[[], float]:
    """The mean loss on some held-out frames, of the network as it is when called."""
    windows = Windows(demonstrations, held.astype(np.float32), learner.span, statistics, device, pictures)
    frames = np.flatnonzero(held)
    frames = frames[np.unique(np.linspace(0, len(frames) - 1, WATCHED_FRAMES).astype(np.int64))]
    parts = [frames[start : start + WATCHED_BATCH] for start in range(0, len(frames), WATCHED_BATCH)]
    return lambda: float(np.mean(np.concatenate([learner.losses(windows.gather(p)).cpu().numpy() for p in parts])))


def _clear(out: Path) -> None:
    """Remove the files that training writes, and nothing else that may stand in the folder."""
    shutil.rmtree(out / TRAINING_FOLDER, ignore_errors=True)
    for path in (*policy_files(out), out / CARD):
        path.unlink(missing_ok=True)
