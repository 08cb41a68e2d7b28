"""LeRobot's SARM, fed with features directly: its processor wants CLIP weights from a hub.

Windows, rewinding, labels and the loss are its own functions; what is written here is the batch that its processor
would make of them. One sparse head over the store's stages, which is the least work it can be asked to do.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from robo_policies.cloning.lerobot_versions import from_lerobot
from robo_rm.reward_models.prediction import Prediction

SARMConfig, SARMRewardModel, sarm_utils = map(from_lerobot, ("SARMConfig", "SARMRewardModel", "sarm_utils"))

BATCH = 32
STATES = 32


@dataclass(frozen=True)
class Shape:
    """Size and peak learning rate; as released by default."""

    width: int = 768
    layers: int = 8
    heads: int = 12
    rate: float | None = None


RELEASED = Shape()


class Sarm:
    """The released model, at its defaults where no other shape is given.

    Args:
        features: (T, F) of each episode by uuid.
        states: (T, D) of each, standardised.
        segments: (stage, start, end) of each.
        stages: names.
        priors: (K,) of the training split.
        train: uuids.
        bfloat16: train under autocast, which its own script does not do on a CPU.
        warmup: steps; its own 500 are more than there is time for here.
        shape: of the transformers.
    """

    def __init__(
        self,
        features: dict[str, np.ndarray],
        states: dict[str, np.ndarray],
        segments: dict[str, list[tuple[int, int, int]]],
        stages: list[str],
        priors: np.ndarray,
        train: list[str],
        bfloat16: bool,
        warmup: int = 500,
        seed: int = 0,
        shape: Shape = RELEASED,
    ) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        config = SARMConfig(
            device="cpu",
            image_dim=next(iter(features.values())).shape[1],
            hidden_dim=shape.width,
            num_layers=shape.layers,
            num_heads=shape.heads,
        )
        config.num_sparse_stages = len(stages)
        config.sparse_subtask_names = list(stages)
        config.sparse_temporal_proportions = [float(share) for share in priors]
        self.config, self.model = config, SARMRewardModel(config)
        # Its scoring hands the stage probabilities to numpy, which knows no bfloat16.
        self.model.stage_model.register_forward_hook(lambda module, given, logits: logits.float())
        self.features, self.states, self.segments, self.train = features, states, segments, train
        self.bfloat16, self.warmup = bfloat16, warmup
        self.rng = np.random.default_rng(seed)
        # In place of CLIP's reading of the instruction: one direction for the task, others for wrong ones.
        self.task = torch.from_numpy(self.rng.standard_normal(config.text_dim)).float()
        preset = config.get_optimizer_preset()
        self.rate, self.steps, self.seconds, self.seed = shape.rate or preset.lr, 0, 0.0, seed
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=self.rate, weight_decay=preset.weight_decay, betas=preset.betas
        )
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())

    def window(self, uuid: str, frame: int, rewind: int | None) -> list[int]:
        """Frames of a training window: 9 around the frame, then those gone back to."""
        config, length = self.config, len(self.features[uuid])
        frames = sarm_utils.compute_absolute_indices(frame, 0, length, config.n_obs_steps, config.frame_gap)[0].tolist()
        if rewind is None:
            back = sarm_utils.apply_rewind_augmentation(
                frame, 0, config.n_obs_steps, config.max_rewind_steps, frame_gap=config.frame_gap
            )[1]
            frames += back
        return frames

    def batch(self) -> dict[str, Any]:
        """A batch as its processor makes it in training."""
        slots = self.config.num_frames
        rewind = None if random.random() < self.config.rewind_probability else 0
        wrong = random.random() < self.config.language_perturbation_probability
        video = np.zeros((BATCH, slots, self.config.image_dim), np.float32)
        state = np.zeros((BATCH, slots, STATES), np.float32)
        targets, lengths = np.zeros((BATCH, slots), np.float32), np.zeros(BATCH, np.int32)
        for row in range(BATCH):
            uuid = self.train[int(self.rng.integers(len(self.train)))]
            frames = self.window(uuid, int(self.rng.integers(len(self.features[uuid]))), rewind)
            lengths[row] = len(frames)
            video[row, : len(frames)] = self.features[uuid][frames]
            state[row, : len(frames), : self.states[uuid].shape[1]] = self.states[uuid][frames]
            if not wrong:
                targets[row, : len(frames)] = [self.target(uuid, frame) for frame in frames]
        text = torch.from_numpy(self.rng.standard_normal(self.config.text_dim)).float() if wrong else self.task
        return {
            "video_features": torch.from_numpy(video),
            "text_features": text.expand(BATCH, -1),
            "state_features": torch.from_numpy(state),
            "lengths": torch.from_numpy(lengths),
            "sparse_targets": torch.from_numpy(targets),
        }

    def target(self, uuid: str, frame: int) -> float:
        """Stage and share of a frame in its form."""
        names = self.config.sparse_subtask_names
        segments = self.segments[uuid]
        found = sarm_utils.find_stage_and_tau(
            frame,
            len(self.features[uuid]),
            [names[stage] for stage, _, _ in segments],
            [start for _, start, _ in segments],
            [end - 1 for _, _, end in segments],
            names,
            dict(zip(names, self.config.sparse_temporal_proportions, strict=True)),
            return_combined=True,
        )
        return float(found)

    def step(self) -> int:
        """One step of training; returns the frames supervised, all slots counted as its loss counts them."""
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * min(1.0, (self.steps + 1) / self.warmup)
        batch = self.batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss, _ = self.model(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimiser.step()
        self.steps += 1
        return BATCH * self.config.num_frames

    def fit(self, seconds: float, until: float = float("inf"), kept: Path | None = None) -> bool:
        """Train for so many seconds in all; False where the clock passed ``until`` before.

        ``kept`` is a checkpoint: gone on from where it is there, written where time has run out.
        """
        if kept is not None and kept.exists() and not self.steps:
            self._load(kept)
        while self.seconds < seconds and time.monotonic() < until:
            start = time.monotonic()
            self.step()
            self.seconds += time.monotonic() - start
        done = self.seconds >= seconds
        if kept is not None and time.monotonic() >= until:
            self._save(kept)
        return done

    def _save(self, path: Path) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, parameter in enumerate(self.model.parameters()):
            for name, value in self.optimiser.state[parameter].items():
                tensors[f"optimiser.{number}.{name}"] = value
        note = {"note": json.dumps({"steps": self.steps, "seconds": self.seconds})}
        beside = path.with_suffix(".part")
        safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, beside, note)
        beside.rename(path)

    def _load(self, path: Path) -> None:
        with safetensors.safe_open(path, "pt") as file:
            note = json.loads(file.metadata()["note"])
        tensors = safetensors.torch.load_file(path)
        self.steps, self.seconds = int(note["steps"]), float(note["seconds"])
        model = {name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")}
        self.model.load_state_dict(model)
        for number, parameter in enumerate(self.model.parameters()):
            names = ("step", "exp_avg", "exp_avg_sq")
            state = {
                name: tensors[f"optimiser.{number}.{name}"] for name in names if f"optimiser.{number}.{name}" in tensors
            }
            if state:
                self.optimiser.state[parameter] = state
        # Other draws than those of the steps before.
        torch.manual_seed(self.seed + self.steps)
        random.seed(self.seed + self.steps)
        self.rng = np.random.default_rng((self.seed, self.steps))

    def predict(self, uuid: str, every: int = 1) -> Prediction:
        """Every so many frames of an episode as its own script scores it: from a window around the frame, 4 s of which
        are future."""
        self.model.eval()
        length, middle = len(self.features[uuid]), self.config.n_obs_steps // 2
        progress, stages = [], []
        chosen = range(0, length, every)
        for start in range(0, len(chosen), BATCH):
            frames = np.array([self.window(uuid, t, 0) for t in chosen[start : start + BATCH]])
            rewards, chances = self.reward(self.features[uuid][frames], self.states[uuid][frames])
            progress.append(rewards[:, middle])
            stages.append(chances[:, middle])
        values = np.concatenate(progress).astype(np.float32)
        return Prediction(values, np.concatenate(stages).astype(np.float32), np.zeros_like(values))

    def reward(self, features: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Progress (B, 9) and stage probabilities (B, 9, K) of windows of features and states (B, 9, .)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            rewards, chances = self.model.calculate_rewards(
                self.task.expand(len(features), -1).numpy(),
                features.astype(np.float32),
                states.astype(np.float32),
                return_all_frames=True,
                return_stages=True,
            )
        return np.asarray(rewards, np.float32), np.asarray(chances, np.float32)
