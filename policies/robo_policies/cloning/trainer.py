"""Behaviour cloning with a weight per sample, for any learner, by the training engine.

    L = sum_i w_i l_i / sum_i w_i      over the data set (RA-BC, SARM, arXiv 2509.25358)

Every batch estimates that sum without bias: samples are drawn evenly from the frames whose weight is above zero, and
each loss counts with its weight divided by the mean weight of the data set. The mean weight of the *batch* is not used:
it would scale a batch of poor frames up until it counted as much as a batch of good ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ConfigError
from robo_policies.cloning.learner import Learner
from robo_policies.cloning.settings import CloningSettings
from robo_policies.cloning.windows import Drawn, Windows
from robo_rm.training.budget import STEPS, Budget
from robo_rm.training.callbacks import HeldOut
from robo_rm.training.checkpoint import read_note
from robo_rm.training.device import autocast, computes_bf16, own_random_numbers, process_index
from robo_rm.training.engine import Engine, Recipe
from robo_rm.training.objective import Objective
from robo_rm.training.schedule import warmup_cosine

CHECKPOINT = "state.safetensors"
WARM_UP = 0.03  # fraction of the training during which the learning rate rises
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

    losses: npt.NDArray[np.float32]
    seconds: float
    ended_by: str = STEPS
    held_out: list[list[float]] = field(default_factory=list)


class CloningObjective(Objective[Drawn]):
    """A policy's weighted loss on windows of demonstrations.

    Noise (dropout, the latent) comes from torch's global generators, which the engine saves with its state.

    Args:
        learner: the policy.
        windows: the samples.
        settings: how to train.
        seed: names the order of the samples.
        device: where the network is.
    """

    rate_setting = "training.learning_rate"

    def __init__(self, learner: Learner, windows: Windows, settings: CloningSettings, seed: int, device: str) -> None:
        self.network = learner.network
        self._learner, self._windows, self._settings, self._seed = learner, windows, settings, seed
        self._device = device
        self._bf16 = settings.precision == "bf16" or (settings.precision == "auto" and computes_bf16(device))

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over what the learner does not freeze."""
        parameters = [value for value in self.network.parameters() if value.requires_grad]
        settings = self._settings
        return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)

    def rate(self, step: int, total: int) -> float:
        """A linear rise, then half a cosine, both over the whole training."""
        fraction = step / total
        return warmup_cosine(fraction, (fraction + 1e-3) / WARM_UP, LAST_RATE)

    def batch(self, number: int) -> Drawn:
        """The samples of a batch, with their pictures."""
        return self._windows.draw(number, self._settings.batch_size, self._seed)

    def loss(self, batch: Drawn) -> dict[str, torch.Tensor]:
        """The mean of the weighted losses."""
        joined = self._windows.join(batch)
        with autocast(self._device, self._bf16):
            losses = self._learner.losses(joined)
        return {"total": (losses.float() * joined["weight"]).mean()}


def clone(
    learner: Learner,
    windows: Windows,
    budget: Budget,
    settings: CloningSettings,
    seed: int,
    checkpoints: Path,
    fingerprint: Mapping[str, object],
    device: str = "cpu",
    title: str = "train policy",
    held_out: Callable[[], float] | None = None,
) -> CloningResult:
    """Train ``learner`` on ``windows``; its network holds the averaged weights afterwards.

    Args:
        learner: the policy, freshly made.
        windows: the samples.
        budget: how long, in steps.
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
    path = checkpoints / CHECKPOINT
    if path.exists():
        found = read_note(path)["fingerprint"]
        assert isinstance(found, dict)
        check_fingerprint(found, fingerprint, checkpoints.parent)
    recipe = Recipe(budget, settings.ema_decay, settings.gradient_clip, settings.checkpoint_seconds)
    watch = HeldOut(lambda: _held_out(held_out)) if held_out is not None else None
    with own_random_numbers(device):
        torch.manual_seed(seed + process_index())
        engine = Engine(CloningObjective(learner, windows, settings, seed, device), recipe, device)
        engine.fit(path, title, {"fingerprint": fingerprint}, [] if watch is None else [watch])
    engine.finish()
    return CloningResult(
        engine.losses[:, 0].astype(np.float32),
        engine.step_seconds,
        engine.ended_by,
        [] if watch is None else watch.rows,
    )


@torch.no_grad()
def _held_out(measure: Callable[[], float]) -> tuple[float, str]:
    loss = measure()
    return loss, f"meanwhile, loss on held-out frames {loss:.3f}"


def check_fingerprint(found: Mapping[str, object], wanted: Mapping[str, object], folder: Path) -> None:
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


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
