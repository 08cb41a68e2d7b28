"""Early stopping on figures that a rollout would show, never on the error on demonstrations.

SARM's ablation (arXiv 2509.25358, table 3): without rewinding the error on demonstrations falls and the judgement of
rollouts collapses (.008 and .67 against .009 and .94). So the validation episodes must hold failures, and what counts
is whether they are told from successes and whether stages are claimed that were not reached. Validation episodes are
cut from the training split; those held out choose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from robo_core.errors import ConfigError
from robo_rm.training.held_out import held_out_figures

BEST = "best.safetensors"
# Shares of the budget between two looks, and before the first one: early on the ranks are chance.
EVERY, FROM = 0.1, 0.3


class Kept(Protocol):
    """What of a trainer is needed here."""

    def save(self, path: Path, note: Mapping[str, Any]) -> None:
        """Write a checkpoint."""

    def load(self, path: Path) -> dict[str, Any]:
        """Go back to a checkpoint."""

    def model(self, provenance: Mapping[str, Any]) -> Any:
        """The model as it is now."""


class EarlyStopping:
    """Keeps the best model of a training by its figures on validation episodes.

    Args:
        episodes: validation episodes.
        patience: looks without a better figure after which training ends.
        folder: where the best checkpoint is kept while training runs.

    Raises:
        ConfigError: there is no failure, or no success, among the episodes.
    """

    def __init__(self, episodes: Sequence[Any], patience: int, folder: Path) -> None:
        outcomes = [episode.success for episode in episodes]
        for outcome, name in ((False, "failure"), (True, "success")):
            if outcome not in outcomes:
                raise ConfigError(
                    f"validation={len(episodes)} holds no {name}, and stopping early needs both; "
                    "give more, or validation=0 (record or keep failures: see docs/reward_model.md)"
                )
        if patience < 1:
            raise ConfigError(f"patience={patience}: give a number above 0")
        self.episodes, self.patience, self._path = list(episodes), patience, folder / BEST
        self.best, self.waited, self.looked = -math.inf, 0, 0.0

    def state(self) -> dict[str, float]:
        """Plain numbers for a checkpoint's note."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "waited": self.waited, "looked": self.looked}  # type: ignore[dict-item]

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.best = -math.inf if state["best"] is None else float(state["best"])
        self.waited, self.looked = int(state["waited"]), float(state["looked"])

    def due(self, spent: float) -> bool:
        """Whether it is time to look again, at a share of the budget."""
        return spent >= max(FROM, self.looked + EVERY)

    def look(self, trainer: Kept, provenance: Mapping[str, Any], spent: float) -> bool:
        """Judge the model as it is, keep it if it is the best so far; whether training should end."""
        self.looked = spent
        score = rollout_score(held_out_figures(trainer.model(provenance), self.episodes))
        if score > self.best:
            self.best, self.waited = score, 0
            self._path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save(self._path, {"score": score})
        else:
            self.waited += 1
        return self.waited >= self.patience

    def go_back(self, trainer: Kept) -> None:
        """Take the best model, if there was a look at all."""
        if self._path.exists():
            trainer.load(self._path)

    def forget(self) -> None:
        """Remove the file of the best model, which the finished folder has now."""
        self._path.unlink(missing_ok=True)


def rollout_score(figures: Mapping[str, float]) -> float:
    """Mean of auroc and 1 - hallucination, of those that are defined; the error on demonstrations has no part in it."""
    parts = [figures["auroc"], 1 - figures["hallucination"]]
    known = [part for part in parts if math.isfinite(part)]
    return sum(known) / len(known) if known else -math.inf
