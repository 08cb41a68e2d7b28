"""A clone of few decisions is not trained until it knows them by heart."""

from __future__ import annotations

import numpy as np
import pytest

from robo_policies.rl.optimisers import FlatAdam
from robo_policies.rl.proposals import BATCH, FEWEST_STEPS, PASSES, ClonedDecisions


def decisions(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(count, 3)).astype(np.float32)
    return seen, np.tanh(seen[:, :2])


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(16, 2000, 200), (16, 10, 10), (256, 2000, 400), (6400, 500, 500)]
)
def test_few_decisions_take_few_steps(monkeypatch: pytest.MonkeyPatch, count: int, most: int, expected: int) -> None:
    assert (PASSES, BATCH, FEWEST_STEPS) == (400, 256, 200)
    taken, step = [], FlatAdam.step
    monkeypatch.setattr(FlatAdam, "step", lambda self: (taken.append(1), step(self)))
    ClonedDecisions(3, 2, 16, seed=0).train(*decisions(count), most)
    assert len(taken) == expected


def test_the_error_told_is_that_of_what_was_learnt() -> None:
    clone, (seen, action) = ClonedDecisions(3, 2, 64, seed=0), decisions(400)
    told = clone.train(seen, action, 600)
    made = clone({"observation.state": seen})
    assert told == pytest.approx(float(np.square(made - action).mean()), rel=0.5)
    assert told < 0.01
