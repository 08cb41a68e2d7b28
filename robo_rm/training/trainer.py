"""One training step, its schedule and its checkpoint, for any network that is trained by gradients.

Every random draw of step n comes from (seed, n), so a run that was killed and resumed is, step for step, the run that
was not.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ModelError
from robo_core.outputs import write_atomically
from robo_rm.settings import OptimiserSettings

# Share of the peak learning rate at which the cosine ends.
FLOOR = 0.02
# Streams of random numbers, kept apart by a second number.
EPISODES, WINDOWS, IMAGES, WORDS = 0, 1, 2, 3

Network = TypeVar("Network", bound=torch.nn.Module)


class NetworkTrainer(Generic[Network]):
    """A network in training, and the running average of its weights, which is what is kept.

    A kind gives `batch` (made ahead of time in a thread, so it depends on the seed and the step alone) and `loss`.

    Args:
        network: with fresh weights, on the device.
        settings: of the optimiser.
        seed: of every draw.
        device: cpu or cuda.
    """

    losses: tuple[str, ...] = ("total",)
    """Names of what `loss` returns, ``total`` first."""

    def __init__(self, network: Network, settings: OptimiserSettings, seed: int, device: str) -> None:
        self.settings, self.seed, self.device = settings, seed, device
        self.network = network
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self.steps = 0
        self.autocast = torch.bfloat16 if has_fast_bfloat16(device) else None
        self._optimiser = _optimiser(network, settings)

    def batch(self, step: int) -> Any:
        """The batch of a step."""
        raise NotImplementedError

    def loss(self, batch: Any) -> dict[str, torch.Tensor]:
        """The losses named in `losses`; only the forward pass of the network is under `half`."""
        raise NotImplementedError

    def half(self) -> torch.autocast:
        """bfloat16 arithmetic where the machine has it."""
        return torch.autocast(self.device, self.autocast or torch.bfloat16, enabled=self.autocast is not None)

    def step(self, batch: Any, fraction: float) -> dict[str, float]:
        """Train on one batch; ``fraction`` of the training that is behind sets the learning rate. Returns the
        losses.

        Raises:
            ModelError: the loss is not a number any more.
        """
        torch.manual_seed(self.seed * 1_000_003 + self.steps)
        for group in self._optimiser.param_groups:
            # A group may learn at a share of the rate, such as encoders slower than heads.
            rate = self.settings.learning_rate * group.get("share", 1.0)
            group["lr"] = rate * schedule(fraction, self.steps, self.settings.warmup)
        self.network.train()
        losses = self.loss(batch)
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

    def episodes_of(self, step: int, count: int) -> npt.NDArray[np.int64]:
        """Episodes of a step's samples out of ``count``: all of them in random order, again and again."""
        batch = self.settings.batch
        places = np.arange(step * batch, (step + 1) * batch)
        rounds = {
            turn: np.random.default_rng((self.seed, EPISODES, turn)).permutation(count)
            for turn in np.unique(places // count).tolist()
        }
        return np.array([rounds[place // count][place % count] for place in places.tolist()], dtype=np.int64)

    def chance(self, count: int, share: float) -> torch.Tensor:
        """(count,) bool, True with probability ``share``."""
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


def _optimiser(network: torch.nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is computed in hardware there; emulated, it is slower than float32."""
    if device != "cpu":
        return torch.cuda.is_bf16_supported()
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in checks if hasattr(torch.cpu, name))
