"""Early stopping on metrics that a rollout would show, never on the error on demonstrations.

SARM's ablation (arXiv 2509.25358, table 3): without rewinding the error on demonstrations falls and the judgement of
rollouts collapses (.008 and .67 against .009 and .94). So the validation episodes must hold failures, and what counts
is whether they are distinguished from successes and whether stages are claimed that were not reached. Validation
episodes are cut from the training split; those held out choose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from robo_core.errors import ConfigError
from robo_rm.training.budget import EARLY_STOPPING
from robo_rm.training.device import wait_for_all
from robo_rm.training.engine import Batch, Engine

BEST = "best.safetensors"
# Fractions of the budget between two evaluations, and before the first one: early on the ranks are chance.
EVERY, FROM = 0.1, 0.3
# Evaluations fall on the points of the loss curve.
STEPS_PER_POINT = 10


class _Outcome(Protocol):
    @property
    def success(self) -> bool | None: ...


def check_validation(episodes: Sequence[_Outcome], patience: int) -> None:
    """Refuse validation episodes that cannot decide when to stop.

    Raises:
        ConfigError: there is no failure, or no success, among the episodes; or the patience is below 1.
    """
    outcomes = [episode.success for episode in episodes]
    for outcome, name in ((False, "failure"), (True, "success")):
        if outcome not in outcomes:
            raise ConfigError(
                f"validation={len(episodes)} holds no {name}, and stopping early needs both; "
                "give more, or validation=0 (record or keep failures: see docs/reward_model.md)"
            )
    if patience < 1:
        raise ConfigError(f"patience={patience}: give a number above 0")


class EarlyStopping:
    """Keeps the best weights of a training by their metrics on validation episodes; a callback of the engine.

    Args:
        measure: the metrics of the network as it is.
        patience: evaluations without a better score after which training ends.
        folder: where the best checkpoint is kept while training runs.
    """

    note = ""

    def __init__(self, measure: Callable[[], Mapping[str, float]], patience: int, folder: Path) -> None:
        self._measure, self.patience, self._path = measure, patience, folder / BEST
        self.best, self.waited, self.evaluated = -math.inf, 0, 0.0

    def state(self) -> dict[str, object]:
        """Plain numbers for a checkpoint's note."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "waited": self.waited, "evaluated": self.evaluated}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take up a `state`."""
        self.best = -math.inf if state["best"] is None else float(str(state["best"]))
        self.waited, self.evaluated = int(str(state["waited"])), float(str(state["evaluated"]))

    def due(self, spent: float) -> bool:
        """Whether it is time to evaluate again, at a fraction of the budget."""
        return spent >= max(FROM, self.evaluated + EVERY)

    def after_step(self, engine: Engine[Batch]) -> str:
        """Evaluate when it is time, keep the weights if they are the best so far; whether training should end."""
        spent = engine.recipe.budget.spent(engine.steps)
        at_point = engine.ended_by or engine.steps % STEPS_PER_POINT == 0
        if not at_point or not self.due(spent):
            return ""
        self.evaluated = spent
        with engine.averaged():
            score = rollout_score(self._measure())
        if score > self.best:
            self.best, self.waited = score, 0
            self._path.parent.mkdir(parents=True, exist_ok=True)
            engine.save(self._path, {"score": score})
        else:
            self.waited += 1
        return EARLY_STOPPING if self.waited >= self.patience else ""

    def take_best(self, engine: Engine[Batch]) -> int:
        """Take the best weights, if there was an evaluation at all; returns their step."""
        wait_for_all()
        if not self._path.exists():
            return engine.steps
        return int(str(engine.load_weights(self._path)["steps"]))

    def forget(self) -> None:
        """Remove the file of the best weights, which the finished folder has now."""
        self._path.unlink(missing_ok=True)


def rollout_score(figures: Mapping[str, float]) -> float:
    """Mean of auroc and 1 - hallucination, of those that are defined; the error on demonstrations has no part in it."""
    parts = [figures["auroc"], 1 - figures["hallucination"]]
    known = [part for part in parts if math.isfinite(part)]
    return sum(known) / len(known) if known else -math.inf
