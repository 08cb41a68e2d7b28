"""Off-policy learning: step the environments, store the transitions, update from the replay buffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.algorithms.occupancy_penalty import PenalizedSac
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv, StepResult
from robo_policies.rl.imitation.self_imitation import MIN_SUCCESSES, SelfImitation
from robo_policies.rl.modules.normalization import RunningMeanStd
from robo_policies.rl.runners.runner import RunContext, Runner
from robo_policies.rl.storage.replay_buffer import Batch, ReplayBuffer
from robo_policies.rl.types import Floats


class OffPolicyRunner(Runner):
    """One run of soft actor-critic.

    Args:
        context: environments, settings and folder.
        sac: the learner.
        demonstrations: replay buffer of demonstrated transitions, or None.
        self_imitation: retrains the behaviour prior; None to leave it unmodified.
        statistics: of the observations, by the demonstrations so far; updated with what is learned from.

    Raises:
        ConfigError: a setting of the loop is out of range.
    """

    def __init__(
        self,
        context: RunContext,
        sac: Sac | PenalizedSac,
        demonstrations: ReplayBuffer | None = None,
        self_imitation: SelfImitation | None = None,
        statistics: RunningMeanStd | None = None,
    ) -> None:
        settings = context.settings
        if not 0 <= settings.demonstration_fraction < 1:
            raise ConfigError(
                f"learning.demonstration_fraction={settings.demonstration_fraction}: give a number from 0 to below 1"
            )
        fractions = {
            "success_fraction": settings.success_fraction,
            "prior_episode_fraction": settings.prior_episode_fraction,
        }
        for name, value in fractions.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"learning.{name}={value}: give a number from 0 to 1")
        if settings.n_step < 1:
            raise ConfigError(f"learning.n_step={settings.n_step}: give 1 macro-action or more")
        super().__init__(context, sac)
        self._sac, self._demonstrations, self._self_imitation = sac, demonstrations, self_imitation
        self._statistics = statistics or RunningMeanStd(self.envs.observation_size + 1)

    @property
    def policy(self) -> Sac:
        """The learner that acts."""
        return self._sac.policy if isinstance(self._sac, PenalizedSac) else self._sac

    def save(self) -> None:
        """As `Runner.save`, with the statistics of the observations."""
        self.state.statistics = self._statistics.snapshot()
        super().save()

    def load(self) -> bool:
        """As `Runner.load`."""
        found = super().load()
        if found and self.state.statistics is not None:
            self._statistics.restore(self.state.statistics)
        return found

    def _tensors(self) -> dict[str, torch.Tensor]:
        prior = {} if self._self_imitation is None else self._self_imitation.state()
        return {**self.learner.state(), **prior}

    def _load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.learner.load_state(tensors)
        if self._self_imitation is not None:
            self._self_imitation.load_state(tensors)

    def _empty_replay(self) -> ReplayBuffer:
        envs = self.envs
        return ReplayBuffer(
            self.settings.buffer_size, envs.observation_size, envs.action_size, envs.potential.version
        )  # fmt: skip

    def _step(self) -> None:
        action = self._exploration_action()
        try:
            # Environments in other processes work while this one learns from what it had before.
            self.envs.step_async(action)
            if self.state.macro_actions > self.settings.learning_starts:
                for own, demonstrated in self._batches(self.settings.gradient_steps * len(action)):
                    self._losses = self._sac.update(own, demonstrated)
            result = self.envs.step_wait()
            self._record(result)
            self._imitate(result)
        except (ModelError, ConfigError) as error:
            self._dump_crash(action, error)
            raise

    def _record(self, result: StepResult) -> npt.NDArray[np.float64]:
        rewards = super()._record(result)
        observation, potential = result.transitions["observation"], result.transitions["potential"]
        self._statistics.add(np.concatenate([observation, potential[:, None]], axis=1))
        if result.done.any():
            self.policy.rescale(self._statistics.mean_and_scale())
        return rewards

    def _imitate(self, result: StepResult) -> None:
        assert self.replay is not None
        if self._self_imitation is not None and result.done.any() and self._self_imitation.update(self.replay):
            self.envs.refresh_prior()

    def _exploration_action(self) -> Floats:
        """(N, A) the prior's noisy actions before learning starts and in its own episodes, else the learner's."""
        prior = self.envs.prior_actions()
        controlled, wide = self._prior_controlled()
        if prior is not None:
            std = np.where(controlled & wide, self.settings.prior_wide_noise, self.settings.prior_noise)
            noise = std[:, None] * self._rng.normal(size=prior.shape)
            prior = np.clip(prior + noise, -1, 1).astype(np.float32)
        if self.state.macro_actions < self.settings.learning_starts:
            if prior is not None:
                return prior
            shape = (self.envs.num_envs, self.envs.action_size)
            return self._rng.uniform(-1, 1, shape).astype(np.float32)
        action, _ = self._sac.act(self.envs.observations(), explore=True, prior_actions=prior)
        return action if prior is None else np.where(controlled[:, None], prior, action)

    def _prior_controlled(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(N,) which episodes the behaviour prior controls alone, and in which of those its noise is wide.

        While nothing has succeeded, critics choose by what they do not know, and steer away from where a prior that is
        improved by self-imitation would get. With the fraction f, episode n is the prior's where floor(n f) grows:
        spread evenly, without a random draw, so that a resumed run decides alike.
        """
        number, fraction = self.envs.seeds - self._seed, self.settings.prior_episode_fraction
        turn = np.floor((number + 1) * fraction)
        controlled = (turn > np.floor(number * fraction)) & (self.state.successes < MIN_SUCCESSES)
        return controlled, turn % 2 == 0

    def _evaluation_action(self, envs: MacroActionVectorEnv) -> Floats:
        prior = envs.prior_actions()
        if prior is not None and self.state.macro_actions <= self.settings.learning_starts:
            # Critics that know nothing yet would choose at random between the prior and the actor.
            return prior
        return super()._evaluation_action(envs)

    def _batches(self, updates: int) -> Iterator[tuple[Batch, Batch | None]]:
        """What so many updates learn from: the learner's own transitions, and demonstrated ones where there are any.

        They are drawn together, since composing the rewards of a few dozen transitions costs calls, not arithmetic.
        """
        assert self.replay is not None
        settings, total = self.settings, self.policy.settings.batch_size
        demonstrated = round(total * settings.demonstration_fraction) if self._demonstrations is not None else 0
        # A few short successes among long failures would hardly ever be drawn.
        successful = round(total * settings.success_fraction) if len(self.replay.successful) else 0
        demonstrated = max(demonstrated - successful, 0)
        reward = (self.shaping, settings.discount, settings.n_step)
        own = self.replay.sample(
            self._rng, updates * (total - demonstrated), *reward, successful=updates * successful
        )  # fmt: skip
        if not demonstrated or self._demonstrations is None:
            return ((batch, None) for batch in own.split(updates))
        others = self._demonstrations.sample(self._rng, updates * demonstrated, *reward)
        return zip(own.split(updates), others.split(updates), strict=True)
