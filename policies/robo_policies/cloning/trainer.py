"""The training loop of behaviour cloning with a weight per sample: one light loop for any learner.

    L = sum_i w_i l_i / sum_i w_i      over the data set (RA-BC, SARM, arXiv 2509.25358)

Every batch estimates that sum without bias: samples are drawn evenly from the frames whose weight is above zero, and
each loss counts with its weight divided by the mean weight of the data set. The mean weight of the *batch* is not used:
it would scale a batch of poor frames up until it counted as much as a batch of good ones.

The loop ends after a number of steps, keeps an exponential moving average of the weights, and leaves a checkpoint every
half minute. A run that was killed, or that its cap in minutes cut off, goes on from there and ends in exactly the
weights of an uninterrupted run.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_core.console import progress_bar
from robo_core.errors import ConfigError, ModelError
from robo_core.outputs import write_atomically
from robo_policies.cloning.settings import Budget, CloningSettings
from robo_rm.training.budget import MINUTES, STEPS

if TYPE_CHECKING:
    import torch

    from robo_policies.cloning.learner import Learner
    from robo_policies.cloning.windows import Windows

CHECKPOINT = "state.safetensors"
LOOKS = 10  # looks at held-out frames over the training
WARM_UP = 0.03  # share of the training during which the learning rate rises
LAST_RATE = 0.01  # the learning rate at the end, relative to its peak


@dataclass(frozen=True)
class CloningResult:
    """What a training run did.

    Attributes:
        losses: (steps,) float32, the weighted loss of each step.
        seconds: time spent in steps, over all interrupted parts.
        ended_by: "steps", or "minutes" where the cap cut it off.
        held_out: rows of step and loss on held-out frames, a tenth of the steps apart.
    """

    losses: np.ndarray
    seconds: float
    ended_by: str = STEPS
    held_out: list[list[float]] = field(default_factory=list)


def computes_bf16(device: str) -> bool:
    """Whether bf16 is faster than fp32 here: on CUDA, and on processors with bf16 instructions."""
    if device != "cpu":
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def clone(
    learner: Learner,
    windows: Windows,
    budget: Budget,
    settings: CloningSettings,
    seed: int,
    checkpoints: Path,
    fingerprint: Mapping[str, Any],
    device: str = "cpu",
    title: str = "train policy",
    held_out: Callable[[], float] | None = None,
) -> CloningResult:
    """Train ``learner`` on ``windows``; its network holds the averaged weights afterwards.

    Args:
        learner: the policy, freshly made.
        windows: the samples.
        budget: how long.
        settings: how.
        seed: names the order of the samples and the noise.
        checkpoints: folder for the state of training; a state that is found there is continued.
        fingerprint: everything the result depends on, as plain values. A state with another one is refused.
        device: where the network is.
        title: what the progress bar says.
        held_out: gives the loss on frames that are not trained on, of the network as it is when called.

    Raises:
        ModelError: a loss is not finite, or the state found is damaged.
        ConfigError: the state found belongs to a run with other settings.
    """
    import torch

    run = _Run(learner, budget, settings, seed, fingerprint, device)
    run.restore(checkpoints / CHECKPOINT)
    learner.network.train()
    saved = last = time.monotonic()
    ended_by = STEPS
    with (
        progress_bar(title, total=budget.steps, unit="steps", done=run.step) as bar,
        closing(windows.batches(run.step, settings.batch_size, seed)) as batches,
    ):
        while run.step < budget.steps:
            # One step at least, so that there is something to save.
            if run.step and budget.cut_off(run.seconds):
                ended_by = MINUTES
                break
            loss = run.advance(next(batches))
            now = time.monotonic()
            run.seconds += now - last
            last = now
            if not math.isfinite(loss):
                raise ModelError(f"step {run.step}: the loss is {loss}; try a smaller training.learning_rate")
            if held_out is not None and run.step * LOOKS // budget.steps > (run.step - 1) * LOOKS // budget.steps:
                run.look(held_out)
                last = time.monotonic()
            shown = f", held out {run.held_out[-1][1]:.3f}" if run.held_out else ""
            bar.advance(1, note=f"loss {run.recent_loss():.3f}{shown}")
            if last - saved >= settings.checkpoint_seconds:
                run.save(checkpoints / CHECKPOINT)
                saved = last = time.monotonic()
    run.save(checkpoints / CHECKPOINT)
    with torch.no_grad():
        for parameter, average in zip(run.parameters, run.averages, strict=True):
            parameter.copy_(average)
    learner.network.eval()
    return CloningResult(np.array(run.losses, np.float32), run.seconds, ended_by, run.held_out)


class _Run:
    """The moving state of one training run."""

    def __init__(
        self,
        learner: Learner,
        budget: Budget,
        settings: CloningSettings,
        seed: int,
        fingerprint: Mapping[str, Any],
        device: str,
    ) -> None:
        import torch

        self._learner, self._budget, self._settings, self._device = learner, budget, settings, device
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self.step, self.seconds, self.losses = 0, 0.0, list[float]()
        self.held_out: list[list[float]] = []
        self.parameters = [value for value in learner.network.parameters() if value.requires_grad]
        self.averages = [value.detach().clone() for value in self.parameters]
        self._optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        # Noise (dropout, the latent) comes from torch's global generators: seeded here, saved with the state.
        torch.manual_seed(seed)
        self._bf16 = settings.precision == "bf16" or (settings.precision == "auto" and computes_bf16(device))

    def fraction(self) -> float:
        """How much of the training is done, 1 when all is; by steps, so that time changes no learning rate."""
        return self.step / self._budget.steps

    def look(self, measure: Callable[[], float]) -> None:
        """Note what ``measure`` says of the averaged weights; training goes on as if nothing had been."""
        import torch

        devices = [torch.cuda.current_device()] if self._device == "cuda" else []
        network = self._learner.network
        kept = [parameter.detach().clone() for parameter in self.parameters]
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(0)
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                parameter.copy_(average)
            network.eval()
            self.held_out.append([self.step, measure()])
            network.train()
            for parameter, value in zip(self.parameters, kept, strict=True):
                parameter.copy_(value)

    def recent_loss(self) -> float:
        """Mean loss of the last hundred steps."""
        return float(np.mean(self.losses[-100:]))

    def advance(self, batch: Mapping[str, torch.Tensor]) -> float:
        """One step; returns its loss."""
        import torch

        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * _schedule(self.fraction())
        with self._autocast():
            losses = self._learner.losses(batch)
        loss = (losses.float() * batch["weight"]).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self._settings.gradient_clip)
        self._optimizer.step()
        self.step += 1
        # A young average forgets faster, or the first random weights would stay in it for a thousand steps.
        decay = min(self._settings.ema_decay, self.step / (self.step + 9))
        torch._foreach_lerp_(self.averages, [value.detach() for value in self.parameters], 1 - decay)
        value = float(loss.detach())
        self.losses.append(value)
        return value

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self._device, torch.bfloat16) if self._bf16 else nullcontext()

    def save(self, path: Path) -> None:
        """Write everything the rest of the run depends on, whole or not at all."""
        import torch
        from safetensors.torch import save

        tensors = {"losses": torch.tensor(self.losses), "rng": torch.get_rng_state()}
        if self._device == "cuda":
            tensors["rng_cuda"] = torch.cuda.get_rng_state()
        for index, parameter in enumerate(self.parameters):
            tensors[f"parameter.{index}"] = parameter.detach()
            tensors[f"average.{index}"] = self.averages[index]
            for name, value in self._optimizer.state[parameter].items():
                tensors[f"{name}.{index}"] = value
        metadata = {
            "step": self.step,
            "seconds": self.seconds,
            "held_out": self.held_out,
            "fingerprint": self._fingerprint,
        }
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        write_atomically(path, save(tensors, {name: json.dumps(value) for name, value in metadata.items()}))

    def restore(self, path: Path) -> None:
        """Go on from the state at ``path`` where there is one.

        Raises:
            ModelError: the state is damaged.
            ConfigError: it belongs to a run with other settings.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt", device=self._device) as file:
                metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                check_fingerprint(metadata["fingerprint"], self._fingerprint, path.parent.parent)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
            raise ModelError(f"{path} is damaged ({error}); delete {path.parent} to start again") from error
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"parameter.{index}"])
                self.averages[index].copy_(tensors[f"average.{index}"])
                names = ("step", "exp_avg", "exp_avg_sq")
                self._optimizer.state[parameter] = {name: tensors[f"{name}.{index}"] for name in names}
        torch.set_rng_state(tensors["rng"].cpu())
        if "rng_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng_cuda"].cpu())
        self.step, self.seconds, self.held_out = metadata["step"], metadata["seconds"], metadata["held_out"]
        self.losses = tensors["losses"].tolist()


def check_fingerprint(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with, or to write over, a run with other settings.

    Raises:
        ConfigError: names the first setting that differs.
    """
    wanted = json.loads(json.dumps(wanted))
    for key in sorted({*found, *wanted}):
        if found.get(key) != wanted.get(key):
            raise ConfigError(
                f"{folder} holds a run with {key}={_short(found.get(key))}, not {_short(wanted.get(key))}; "
                f"give another out=, or overwrite=true to start again there"
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _schedule(fraction: float) -> float:
    """Learning rate relative to its peak: a linear rise, then half a cosine."""
    rise = min(1.0, (fraction + 1e-3) / WARM_UP)
    return rise * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0))))
