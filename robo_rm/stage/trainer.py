"""The training loop of the stage-aware model: one step, its schedule, its checkpoint.

Every random draw of step n comes from (seed, n), so a run that was killed and resumed is, step for step, the run that
was not.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robo_datasets.errors import ModelError
from robo_datasets.outputs import write_atomically
from robo_rm.labels.plan import Windows, draw_windows
from robo_rm.labels.progress import cumulative_priors
from robo_rm.settings import OptimiserSettings
from robo_rm.stage.losses import Targets, stage_loss
from robo_rm.stage.model import StageDescription, to_pixels
from robo_rm.stage.network import Heads, StageNetwork, channels_last
from robo_rm.training.augment import augment_window
from robo_rm.training.data import TrainingData

# Share of the peak learning rate at which the cosine ends.
FLOOR = 0.02
# Streams of random numbers, kept apart by a second number.
_EPISODES, _WINDOWS, _IMAGES = 0, 1, 2


class Batch:
    """Windows and the images and states gathered with them.

    ``images`` (B * S, h, w, 3) uint8 by key, ``state`` (B * S, D) or None.
    """

    def __init__(
        self, windows: Windows, images: dict[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None
    ) -> None:
        self.windows, self.images, self.state = windows, images, state


class Trainer:
    """A network in training, and the running average of its weights, which is what is kept.

    Args:
        description: the model to be.
        data: training split.
        settings: of the optimiser.
        seed: of weights and every draw.
        device: cpu or cuda.
    """

    def __init__(
        self,
        description: StageDescription,
        data: TrainingData,
        settings: OptimiserSettings,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.description, self.data, self.settings = description, data, settings
        self.seed, self.device = seed, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = description.network()
        if network.state is not None and data.states is not None:
            mean, scale = _spread(data)
            network.state.mean.copy_(torch.from_numpy(mean))
            network.state.scale.copy_(torch.from_numpy(scale))
        self.network = channels_last(network.to(device))
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.steps = 0
        self._autocast = torch.bfloat16 if _has_fast_bfloat16(device) else None
        self._cumulative = torch.as_tensor(cumulative_priors(description.priors), dtype=torch.float32, device=device)
        self._optimiser = _optimiser(self.network, settings)

    def batch(self, step: int) -> Batch:
        """The batch of a step; depends on the seed and the step alone, so it may be made ahead of time."""
        windows = draw_windows(
            np.random.default_rng((self.seed, _WINDOWS, step)),
            self.data.labels,
            self._episodes(step),
            self.description.shape,
            self.description.reward.plan,
        )
        rng = np.random.default_rng((self.seed, _IMAGES, step))
        slots = windows.frames.shape[1]
        images: dict[str, npt.NDArray[np.uint8]] = {}
        for key, (height, width) in self.data.cameras.items():
            block = np.empty((len(windows.episode), slots, height, width, 3), dtype=np.uint8)
            for row, episode in enumerate(windows.episode):
                frames = self.data.images(int(episode), key, windows.frames[row])
                augment_window(frames, rng, self.description.reward.augmentation, out=block[row])
            images[key] = block.reshape(-1, height, width, 3)
        state = None
        if self.data.states is not None:
            rows = [self.data.states[e][f] for e, f in zip(windows.episode, windows.frames, strict=True)]
            state = np.concatenate(rows)
        return Batch(windows, images, state)

    def step(self, batch: Batch, fraction: float) -> dict[str, float]:
        """Train on one batch; ``fraction`` of the training that is behind sets the learning rate. Returns the
        losses."""
        torch.manual_seed(self.seed * 1_000_003 + self.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * schedule(fraction, self.steps, self.settings.warmup)
        self.network.train()
        with torch.autocast(self.device, self._autocast or torch.bfloat16, enabled=self._autocast is not None):
            heads = self._heads(batch)
        losses = stage_loss(
            Heads(heads.logits.float(), heads.within.float()),
            _targets(batch.windows, self.device),
            self._cumulative,
            self.description.reward.loss,
        )
        self._optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimiser.step()
        self.steps += 1
        self._average()
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        if not math.isfinite(values["total"]):
            raise ModelError(
                f"training diverged at step {self.steps}: the loss is {values['total']}; lower optimiser.learning_rate"
            )
        return values

    def save(self, path: Path, note: Mapping[str, Any]) -> None:
        """Write everything that the next step depends on, and ``note`` (plain JSON), in one atomic file."""
        import safetensors.torch

        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for number, values in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        metadata = {"note": json.dumps({"steps": self.steps, **note})}
        write_atomically(path, safetensors.torch.save(plain, metadata))

    def load(self, path: Path) -> dict[str, Any]:
        """Go on from a file of `save`; returns its note.

        Raises:
            ModelError: the file is damaged or of another model.
        """
        import safetensors

        note = read_note(path)
        try:
            with safetensors.safe_open(path, "pt", device=self.device) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            self.network.load_state_dict(_under(tensors, "network."))
            self.averaged.load_state_dict(_under(tensors, "averaged."))
            whole = self._optimiser.state_dict()
            for name, value in _under(tensors, "optimiser.").items():
                number, field = name.split(".", 1)
                whole["state"].setdefault(int(number), {})[field] = value
            self._optimiser.load_state_dict(whole)
        except (safetensors.SafetensorError, RuntimeError, ValueError, KeyError) as error:
            raise ModelError(f"{path} is damaged or of another model; remove it to train anew ({error})") from error
        self.steps = int(note["steps"])
        return note

    def _episodes(self, step: int) -> npt.NDArray[np.int64]:
        """Episodes of a step's windows: all of them in random order, again and again."""
        count, batch = len(self.data), self.settings.batch
        places = np.arange(step * batch, (step + 1) * batch)
        rounds = {
            turn: np.random.default_rng((self.seed, _EPISODES, turn)).permutation(count)
            for turn in np.unique(places // count).tolist()
        }
        return np.array([rounds[place // count][place % count] for place in places.tolist()], dtype=np.int64)

    def _heads(self, batch: Batch) -> Heads:
        reward, network = self.description.reward, self.network
        count, slots = batch.windows.frames.shape
        kind = self._autocast or torch.float32
        pixels = {key: to_pixels(torch.from_numpy(value).to(self.device), kind) for key, value in batch.images.items()}
        state = first = shown = None
        if network.state is not None and batch.state is not None:
            state = network.state.standardise(torch.from_numpy(batch.state).to(self.device))
            state = state + reward.state_noise * torch.randn_like(state)
            offset = reward.state_offset * torch.randn(count, 1, state.shape[-1], device=state.device)
            state = state + offset.expand(-1, slots, -1).flatten(0, 1)
            # Slot 0 of every window is the first frame of its episode.
            first = state.unflatten(0, (count, slots))[:, :1].expand(-1, slots, -1).flatten(0, 1)
            shown = self._chance(count, 1 - reward.state_dropout)[:, None].expand(-1, slots).flatten()
        tokens = network.encode(pixels, state, first, shown)
        if reward.image_dropout:
            seen = self._chance(count, 1 - reward.image_dropout).repeat_interleave(slots)
            tokens = torch.cat([tokens[:, :-1] * seen[:, None, None], tokens[:, -1:]], dim=1)
        told = [
            self.data.tasks[int(episode)] if keep else ""
            for episode, keep in zip(
                batch.windows.episode, self._chance(count, 1 - reward.instruction_dropout).tolist(), strict=True
            )
        ]
        truth = torch.from_numpy(batch.windows.stage).to(self.device)
        forced = self._chance(count, reward.teacher_forcing)[:, None]
        heads: Heads = network(
            tokens.unflatten(0, (count, slots)), told, torch.where(forced, truth, torch.full_like(truth, -1))
        )
        return heads

    def _chance(self, count: int, share: float) -> torch.Tensor:
        return (torch.rand(count) < share).to(self.device)

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average follows closely, or it would remember the first weights for long.
        decay = min(self.settings.average, self.steps / (self.steps + 9))
        mine, theirs = self.averaged.state_dict(), self.network.state_dict()
        for name, value in theirs.items():
            if value.dtype.is_floating_point:
                mine[name].lerp_(value, 1 - decay)
            else:
                mine[name].copy_(value)


def schedule(fraction: float, step: int, warmup: int) -> float:
    """Share of the peak learning rate: a linear warm-up over steps, times a cosine over the whole training."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(max(fraction, 0.0), 1.0)))
    return min(1.0, (step + 1) / max(warmup, 1)) * (FLOOR + (1 - FLOOR) * cosine)


def read_note(path: Path) -> dict[str, Any]:
    """The note of a checkpoint file.

    Raises:
        ModelError: the file is damaged.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {})["note"])
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is damaged; remove it to train anew ({error})") from error
    if not isinstance(note, dict) or "steps" not in note:
        raise ModelError(f"{path} is no checkpoint of a training; remove it to train anew")
    return note


def _targets(windows: Windows, device: str) -> Targets:
    fields = (windows.supervised, windows.stage, windows.within, windows.progress, windows.complete)
    return Targets(*(torch.from_numpy(values).to(device) for values in fields))


def _spread(data: TrainingData) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    states = np.concatenate(data.states or [])
    # A joint that never moves is left in its own units, not blown up.
    scale = states.std(axis=0)
    return states.mean(axis=0), np.where(scale > 1e-4, scale, 1.0).astype(np.float32)


def _optimiser(network: StageNetwork, settings: OptimiserSettings) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is computed in hardware there; emulated, it is slower than float32."""
    if device != "cpu":
        return torch.cuda.is_bf16_supported()
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in checks if hasattr(torch.cpu, name))
