"""Learning from the demonstrations alone: the loop's checkpoints and evaluations, without decisions in a world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robo_core.errors import ModelError
from robo_policies.rl.actors import PlainActor
from robo_policies.rl.iql import Iql
from robo_policies.rl.learning import Learning
from robo_policies.rl.replay import Replay
from robo_policies.rl.settings import LearningSettings
from robo_rm.shaping.modes import ShapingSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from robo_policies.rl.decisions import DecisionWorlds


class OfflineLearning(Learning):
    """One offline run; its steps are updates of the learner.

    Args:
        worlds: only tell their sizes.
        evaluation_worlds: as `Learning`.
        iql: the learner.
        demonstrations: the scored decisions that it learns from.
        shaping: how the learning reward is made.
        settings: of the loop; of it, the discount and the evaluations count.
        seed: of the batches.
        folder: for the checkpoint.
        fingerprint: as `Learning`.
    """

    def __init__(
        self,
        worlds: DecisionWorlds,
        evaluation_worlds: Callable[[int], DecisionWorlds],
        iql: Iql,
        demonstrations: Replay,
        shaping: ShapingSettings,
        settings: LearningSettings,
        seed: int,
        folder: Path,
        fingerprint: str,
    ) -> None:
        super().__init__(
            worlds, evaluation_worlds, iql, demonstrations, shaping, settings, seed, folder, fingerprint
        )  # fmt: skip
        self._iql, self._shown = iql, demonstrations

    @property
    def acting(self) -> PlainActor:
        """The policy alone."""
        return self._iql.policy

    def _begin(self) -> None:
        self.replay = self._shown
        self._begun = True

    def _empty_replay(self) -> Replay:
        shown = self._shown
        return Replay(shown.capacity, shown["observation"].shape[1], shown["action"].shape[1], shown.version)

    def _decide(self) -> None:
        batch = self._shown.sample(self._rng, self._iql.settings.batch, self.shaping, self.settings.discount)
        try:
            self._losses = self._iql.update(batch)
        except ModelError as error:
            self._dump(batch.action, error)
            raise
        self.note.steps += 1
        self.note.decisions += 1
