"""Offline learning: the loop's checkpoints and evaluations, without stepping an environment to learn."""

from __future__ import annotations

from robo_core.errors import ModelError
from robo_policies.rl.algorithms.iql import Iql
from robo_policies.rl.modules.mlp_actor import MlpActor
from robo_policies.rl.runners.runner import RunContext, Runner
from robo_policies.rl.storage.replay_buffer import ReplayBuffer


class OfflineRunner(Runner):
    """One offline run; its steps are updates of the learner.

    Args:
        context: of it, the evaluations and the discount are used.
        iql: the learner.
        demonstrations: the scored transitions that it learns from.
    """

    def __init__(self, context: RunContext, iql: Iql, demonstrations: ReplayBuffer) -> None:
        super().__init__(context, iql)
        self._iql, self._demonstrations = iql, demonstrations

    @property
    def policy(self) -> MlpActor:
        """The policy alone."""
        return self._iql.policy

    def _begin(self) -> None:
        self.replay = self._demonstrations

    def _empty_replay(self) -> ReplayBuffer:
        stored = self._demonstrations
        sizes = stored.floats("observation").shape[1], stored.floats("action").shape[1]
        return ReplayBuffer(stored.capacity, *sizes, stored.version)

    def _step(self) -> None:
        batch = self._demonstrations.sample(
            self._rng, self._iql.settings.batch_size, self.shaping, self.settings.discount
        )  # fmt: skip
        try:
            self._losses = self._iql.update(batch)
        except ModelError as error:
            self._dump_crash(batch.action, error)
            raise
        self.state.steps += 1
        self.state.macro_actions += 1
