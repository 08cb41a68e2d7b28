"""A behaviour prior of few transitions is not trained until it overfits."""

from __future__ import annotations

import numpy as np
import pytest

from robo_policies.rl.imitation.behavior_prior import BATCH_SIZE, MAX_EPOCHS, MIN_STEPS, ClonedPrior
from robo_policies.rl.modules.flat_adam import FlatAdam


def transitions(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(count, 3)).astype(np.float32)
    return seen, np.tanh(seen[:, :2])


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(16, 2000, 200), (16, 10, 10), (256, 2000, 400), (6400, 500, 500)]
)
def test_few_transitions_take_few_steps(monkeypatch: pytest.MonkeyPatch, count: int, most: int, expected: int) -> None:
    assert (MAX_EPOCHS, BATCH_SIZE, MIN_STEPS) == (400, 256, 200)
    taken, step = [], FlatAdam.step
    monkeypatch.setattr(FlatAdam, "step", lambda self: (taken.append(1), step(self)))
    ClonedPrior(3, 2, 16, seed=0).train(*transitions(count), most)
    assert len(taken) == expected


def test_the_error_returned_is_that_of_what_was_learned() -> None:
    clone, (seen, action) = ClonedPrior(3, 2, 64, seed=0), transitions(400)
    error = clone.train(seen, action, 600)
    made = clone({"observation.state": seen})
    assert error == pytest.approx(float(np.square(made - action).mean()), rel=0.5)
    assert error < 0.01
