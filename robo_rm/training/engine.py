"""The one training engine: it trains any `Objective` for a number of steps, whatever machine does them.

It computes the batches ahead in a thread, keeps an exponential moving average of the weights, writes checkpoints, calls
back after every step, and ends after the budget's steps, when a callback asks for it, or at the cap in minutes. A run
that was killed, or that the cap cut off, resumes from its checkpoint and ends in exactly the weights of an
uninterrupted run.

Several processes (``accelerate launch``, ``torchrun``) train one model together: process r of n computes the batches
r, n + r, 2n + r, ..., gradients are averaged over all, and the first process alone writes and reports.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from robo_core.console import progress_bar, say
from robo_core.errors import ModelError
from robo_rm.training.budget import MINUTES, STEPS, Budget, cut_off_warning
from robo_rm.training.checkpoint import read_note, read_tensors, under, write_checkpoint
from robo_rm.training.device import own_random_numbers
from robo_rm.training.objective import Objective

Batch = TypeVar("Batch")
Tensors: TypeAlias = tuple[torch.Tensor, ...] | list[torch.Tensor]
# Steps whose mean loss is displayed.
RECENT = 100


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        budget: in steps, see `Budget.over`.
        average: decay per step of the moving average of the weights, which is what is kept; 0 keeps the last weights.
        gradient_clip: largest norm of the gradient.
        checkpoint_seconds: time between checkpoints.
    """

    budget: Budget
    average: float
    gradient_clip: float = 1.0
    checkpoint_seconds: float = 45.0


class Callback(Protocol):
    """Something that looks at a training after every step, and may end it."""

    note: str
    """What the progress bar shows of it; empty for nothing."""

    def after_step(self, engine: Engine[Batch]) -> str:
        """Called after every step; returns what ends the training (its ``ended_by``), or nothing to go on."""

    def state(self) -> dict[str, object]:
        """What a resumed run needs, as plain JSON."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Take up a `state`."""


class Engine(Generic[Batch]):
    """An objective in training.

    Args:
        objective: what is trained.
        recipe: how.
        device: cpu or cuda, where the network is.

    Attributes:
        steps: steps done.
        ended_by: ``steps``, ``minutes`` or what a callback said; empty while training goes on.
        seconds: of training, with checkpoints and callbacks, killed runs included.
        step_seconds: of steps alone.
        history: for each step its time since the start in seconds, and the losses.
    """

    def __init__(self, objective: Objective[Batch], recipe: Recipe, device: str) -> None:
        self.objective, self.recipe, self.device = objective, recipe, device
        self.steps, self.ended_by = 0, ""
        self.seconds = self.step_seconds = 0.0
        self.history: list[list[float]] = []
        # Accelerate takes a while to import, and loading a trained model imports this module too.
        from robo_rm.training.processes import Processes

        self._trained = _Trained(objective.network)
        self._weights = list(self._trained.parameters())
        self._average = AveragedModel(self._trained, multi_avg_fn=_following(recipe.average), use_buffers=True)
        self._optimizer = objective.optimizer()
        self._processes = Processes(_Forward(objective), self._optimizer, device)
        self._scheduler = self._schedule_from(0)
        objective.network.train()

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self._processes.index == 0

    @property
    def losses(self) -> np.ndarray:
        """(steps, losses) float64."""
        return np.asarray(self.history, np.float64).reshape(self.steps, -1)[:, 1:]

    def number(self, step: int) -> int:
        """The number of this process's batch at a step."""
        return step * self._processes.count + self._processes.index

    def step(self, batch: Batch) -> float:
        """Train on one batch; returns its total loss.

        Raises:
            ModelError: the loss is not finite.
        """
        self.objective.begin(self.number(self.steps))
        losses = self._processes.forward(batch)
        self._processes.descend(losses["total"], self._weights, self.recipe.gradient_clip)
        self._scheduler.step()
        self.steps += 1
        self._average.update_parameters(self._trained)
        values = [float(losses[name].detach()) for name in self.objective.losses]
        if not math.isfinite(values[0]):
            raise ModelError(
                f"training diverged at step {self.steps}: the loss is {values[0]}; lower {self.objective.rate_setting}"
            )
        self.history.append([0.0, *values])
        return values[0]

    def fit(self, checkpoint: Path, title: str, note: Mapping[str, object], callbacks: Sequence[Callback] = ()) -> None:
        """Train to the end, from ``checkpoint`` where it exists; it holds the state of the end afterwards.

        Args:
            checkpoint: file for the state of training.
            title: what the progress bar says.
            note: plain JSON that goes into the checkpoint, such as what the result depends on.
            callbacks: called in this order.

        Raises:
            ModelError: the loss is not finite, or the checkpoint is damaged.
        """
        if checkpoint.exists():
            self._resume(checkpoint, callbacks)
        budget, started = self.recipe.budget, time.monotonic() - self.seconds
        saved = time.monotonic()
        with (
            progress_bar(title, budget.total, "steps", done=self.steps) as bar,
            ThreadPoolExecutor(1, "batches") as ahead,
        ):
            coming = None if self.ended_by else ahead.submit(self.objective.batch, self.number(self.steps))
            while coming is not None and not self.ended_by:
                begun = time.monotonic()
                batch = coming.result()
                if self.steps + 1 < budget.total:
                    coming = ahead.submit(self.objective.batch, self.number(self.steps + 1))
                self.step(batch)
                now = time.monotonic()
                self.step_seconds += now - begun
                self.history[-1][0] = now - started
                ended = STEPS if self.steps >= budget.total else MINUTES if budget.cut_off(now - started) else ""
                # The clock of the first process decides for all.
                self.ended_by, due = self._processes.agree((ended, now - saved >= self.recipe.checkpoint_seconds))
                for callback in callbacks:
                    asked = callback.after_step(self)
                    self.ended_by = self.ended_by or asked
                bar.advance(1, self._displayed(callbacks))
                if self.ended_by or due:
                    self.seconds = time.monotonic() - started
                    self.save(checkpoint, {**note, "callbacks": [callback.state() for callback in callbacks]})
                    saved = time.monotonic()
        self.seconds = time.monotonic() - started
        if self.ended_by == MINUTES and budget.minutes is not None and self.main:
            say(f"warning: {cut_off_warning(budget.minutes, self.steps, budget.total)}")

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The network has the averaged weights and is in evaluation mode; training resumes as if nothing had been."""
        network = self.objective.network
        self._swap()
        network.eval()
        try:
            with own_random_numbers(self.device):
                torch.manual_seed(0)
                yield
        finally:
            network.train()
            self._swap()

    def finish(self) -> None:
        """Leave the averaged weights in the network, in evaluation mode; nothing is trained afterwards."""
        self._swap()
        self.objective.network.eval()

    def curve(self, every: int) -> list[list[float]]:
        """Rows of step, seconds and mean losses, one for every so many steps and the last."""
        ends = [*range(every, self.steps, every), self.steps] if self.steps else []
        losses = self.losses
        return [
            [end, round(self.history[end - 1][0], 2), *losses[(end - 1) // every * every : end].mean(axis=0).tolist()]
            for end in ends
        ]

    def save(self, path: Path, note: Mapping[str, object]) -> None:
        """Write everything that the rest of the run depends on, with ``note`` (plain JSON)."""
        random = self._processes.gather(self._random_state())
        if not self.main:
            return
        tensors = {f"trained.{n}": value for n, value in enumerate(self._trained.tensors())}
        tensors |= {f"averaged.{n}": value for n, value in enumerate(self._averages())}
        tensors |= {
            f"optimizer.{n}.{name}": value
            for n, weight in enumerate(self._weights)
            for name, value in self._optimizer.state.get(weight, {}).items()
        }
        for rank, states in enumerate(random):
            tensors |= {f"random.{rank}.{name}": value for name, value in states.items()}
        tensors["history"] = torch.tensor(self.history, dtype=torch.float32)
        plain = {"steps": self.steps, "seconds": self.seconds, "step_seconds": self.step_seconds}
        write_checkpoint(path, tensors, {**note, **plain, "ended_by": self.ended_by})

    def load_weights(self, path: Path) -> dict[str, object]:
        """Take the weights and their averages from a file of `save`; returns its note.

        Raises:
            ModelError: the file is damaged or of another model.
        """
        note = read_note(path)
        self._take_weights(path, read_tensors(path, self.device))
        return note

    def load(self, path: Path) -> dict[str, object]:
        """Resume from a file of `save`; returns its note.

        Raises:
            ModelError: the file is damaged or of another model.
        """
        note, tensors = read_note(path), read_tensors(path, self.device)
        self._take_weights(path, tensors)
        for n, weight in enumerate(self._weights):
            state = under(tensors, f"optimizer.{n}.")
            # Fused kernels walk through memory, so what belongs to a weight must lie as the weight does.
            self._optimizer.state[weight] = {
                name: torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
                for name, value in state.items()
            }
        random = under(tensors, f"random.{self._processes.index}.")
        if "cpu" in random:
            torch.set_rng_state(random["cpu"].cpu())
        if "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"].cpu())
        self.history = tensors["history"].tolist()
        self.steps = len(self.history)
        self.seconds, self.step_seconds = (float(str(note[name])) for name in ("seconds", "step_seconds"))
        self.ended_by = str(note["ended_by"])
        self._scheduler = self._schedule_from(self.steps)
        return note

    def _resume(self, path: Path, callbacks: Sequence[Callback]) -> None:
        note = self.load(path)
        states = note["callbacks"]
        assert isinstance(states, list)
        for callback, state in zip(callbacks, states, strict=True):
            callback.restore(state)
        if self.ended_by == MINUTES:
            # A finished run is only evaluated again; one that was cut off goes on where the cap allows it.
            self.ended_by = ""

    def _displayed(self, callbacks: Sequence[Callback]) -> str:
        recent = np.mean([row[1] for row in self.history[-RECENT:]])
        return ", ".join([f"loss {recent:.3f}", *(callback.note for callback in callbacks if callback.note)])

    def _schedule_from(self, step: int) -> LambdaLR:
        rate, total = self.objective.rate, self.recipe.budget.total
        # The first weights count as the first average.
        self._average.n_averaged.fill_(step + 1)
        return LambdaLR(self._optimizer, lambda at: rate(at, total), last_epoch=step - 1)

    def _averages(self) -> list[torch.Tensor]:
        return [*self._average.module.parameters(), *self._average.module.buffers()]

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the network's tensors with their averages, in place and without a copy."""
        for value, average in zip(self._trained.tensors(), self._averages(), strict=True):
            value.data, average.data = average.data, value.data

    @torch.no_grad()
    def _take_weights(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        for kind, mine in (("trained", self._trained.tensors()), ("averaged", self._averages())):
            for n, value in enumerate(mine):
                found = tensors.get(f"{kind}.{n}")
                if found is None or found.shape != value.shape:
                    raise ModelError(f"{path} is a checkpoint of another model; remove it to train again")
                value.copy_(found)

    def _random_state(self) -> dict[str, torch.Tensor]:
        cuda = {"cuda": torch.cuda.get_rng_state()} if self.device == "cuda" else {}
        return {"cpu": torch.get_rng_state(), **cuda}


def _following(most: float) -> Callable[[Tensors, Tensors, torch.Tensor | int], None]:
    """How averages move towards the values after step ``count``, by a decay of ``most`` at the most."""

    def follow(averages: Tensors, values: Tensors, count: torch.Tensor | int) -> None:
        if averages[0].is_floating_point():
            # A young average follows closely, or it would remember the first weights for long.
            torch._foreach_lerp_(averages, values, 1 - min(most, int(count) / (int(count) + 9)))
        else:
            torch._foreach_copy_(averages, values)

    return follow


class _Trained(torch.nn.Module):
    """What training changes of a network: its weights but for frozen ones, and its buffers. It shares their tensors."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList(p for p in network.parameters() if p.requires_grad)
        for n, buffer in enumerate(network.buffers()):
            self.register_buffer(f"buffer{n}", buffer)

    def tensors(self) -> list[torch.Tensor]:
        """All of them, weights first."""
        return [*self.parameters(), *self.buffers()]


class _Forward(torch.nn.Module, Generic[Batch]):
    """An objective's loss as the forward pass of one module, which is what can be spread over processes."""

    def __init__(self, objective: Objective[Batch]) -> None:
        super().__init__()
        self.network = objective.network
        self._loss = objective.loss

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The losses of a batch."""
        return self._loss(batch)
