"""Self-imitation: the behaviour prior is retrained on the transitions that came furthest, and on successes.

Demonstrations that were given up make a prior that gives up. Where a reward model measures progress, only those
transitions are cloned whose episode then came further than is usual from the same progress, in the demonstrations and
in the learner's own episodes. That is reward-aligned cloning (SARM, arXiv 2509.25358) with the progress to come, minus
the usual, for the progress of the next moments (advantage-weighted regression, arXiv 1910.00177, with weights of 0 and
1): a clone of whatever made some progress stops where that usually ends, while this one climbs. The learner's own
successes came furthest of all, and the clone of a handful of them reproduces them long before the critics have learned
their value (self-imitation, arXiv 1806.05635, through IBRL's behaviour prior, arXiv 2311.02198). The prior only
suggests actions: the critics decide, by a reward that is not affected by any of this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.imitation.behavior_prior import ClonedPrior
from robo_policies.rl.storage.replay_buffer import ReplayBuffer

MIN_SUCCESSES = 4
"""The learner's own successful episodes from which the prior is retrained; then by `growth` more, and so on."""
MIN_EPISODES = 4
"""The learner's own episodes, successful or not, from which a filtered prior is retrained; then by `growth` more, until
`MIN_SUCCESSES` succeed."""
MIN_GAIN = 0.005
"""Differences of progress up to this are noise."""
BANDWIDTH = 0.08
"""Standard deviation of the Gaussian kernel over progress by which the usual is averaged."""
LEVELS = 101
"""Grid points of progress from 0 to 1 at which the usual is computed."""


def came_further(*replays: ReplayBuffer) -> list[npt.NDArray[np.bool_]]:
    """(size,) for each replay buffer: whether a transition led to success, or further than is usual from there.

    With b_j the highest potential after transition j in its episode and K a Gaussian kernel, the usual at progress p is
    the kernel regression over the transitions of all these buffers, and a transition qualifies where

        usual(p) = sum_j K(p - Phi_j) b_j / sum_j K(p - Phi_j)
        b > usual(Phi) - MIN_GAIN   and   b > Phi + MIN_GAIN

    Phi is rounded to a grid, which makes the sums one small matrix product whatever the number of transitions.
    """
    phi = np.concatenate([replay.floats("potential") for replay in replays])
    best = np.concatenate([replay.max_future_potential() for replay in replays])
    succeeded = np.concatenate([replay.flags("succeeded") for replay in replays])
    grid = np.linspace(0, 1, LEVELS)
    level = np.rint(np.clip(phi, 0, 1) * (LEVELS - 1)).astype(np.int64)
    kernel = np.exp(-0.5 * np.square((grid[:, None] - grid) / BANDWIDTH))
    sums, counts = (kernel @ np.bincount(level, weights, LEVELS) for weights in (best, None))
    usual = (sums / np.maximum(counts, 1e-9))[level]
    further = succeeded | ((best > usual - MIN_GAIN) & (best - phi > MIN_GAIN))
    return np.split(further, np.cumsum([len(replay) for replay in replays])[:-1])


class SelfImitation:
    """Trains the behaviour prior, retrains it when there is more to learn from, and updates its stored actions.

    Args:
        prior: acts in the environments; learns in place.
        demonstrations: cloned first.
        steps: maximum, of each training.
        growth: factor of successes, or of episodes, between two trainings.
        filtered: clone what came further by the potential rather than everything, until some episodes succeed.

    Raises:
        ConfigError: a growth that is not above 1.
    """

    def __init__(
        self, prior: ClonedPrior, demonstrations: ReplayBuffer, steps: int, growth: float, filtered: bool = False
    ) -> None:
        if not 1 < growth < math.inf:
            raise ConfigError(f"learning.self_imitation_growth={growth:g}: give a factor above 1")
        self.prior, self._demonstrations, self._steps, self._growth = prior, demonstrations, steps, growth
        self._next_successes, self._next_episodes = MIN_SUCCESSES, MIN_EPISODES
        gains = demonstrations.max_future_potential() - demonstrations.floats("potential")
        self._filtered = filtered and bool((gains > MIN_GAIN).any())

    def begin(self) -> float:
        """Clone the demonstrations; returns the error of the clone."""
        replay = self._demonstrations
        chosen = came_further(replay)[0] if self._filtered else np.ones(len(replay), dtype=bool)
        error = self.prior.train(replay.floats("observation")[chosen], replay.floats("action")[chosen], self._steps)
        # The demonstrations were stored before there was a prior.
        self.update_stored_actions(None)
        return error

    def update(self, own: ReplayBuffer) -> bool:
        """Retrain the prior if there is enough more to learn from; returns whether it was."""
        if not self._is_due(own):
            return False
        replays = (own, self._demonstrations)
        chosen = came_further(*replays) if self._filtered else [replay.flags("succeeded") for replay in replays]
        observations, actions = (
            np.concatenate([replay.floats(name)[mask] for replay, mask in zip(replays, chosen, strict=True)])
            for name in ("observation", "action")
        )
        self.prior.train(observations, actions, self._steps)
        self.update_stored_actions(own)
        return True

    def _is_due(self, own: ReplayBuffer) -> bool:
        successes = len(np.unique(own.numbers("episode")[own.successful]))
        if successes >= MIN_SUCCESSES:
            if successes < self._next_successes:
                return False
            self._next_successes = self._grown(self._next_successes, successes)
            return True
        episodes = len(np.unique(own.numbers("episode")))
        if not self._filtered or episodes < self._next_episodes:
            return False
        self._next_episodes = self._grown(self._next_episodes, episodes)
        return True

    def _grown(self, threshold: int, count: int) -> int:
        """The first threshold above the count."""
        while threshold <= count:
            threshold = math.ceil(threshold * self._growth)
        return threshold

    def update_stored_actions(self, own: ReplayBuffer | None) -> None:
        """Replace the prior's actions in the demonstrations and in the learner's own transitions."""
        for replay in (self._demonstrations, own):
            if replay is not None and len(replay):
                actions = self.prior.act(replay.floats("next_observation"))
                replay.floats("next_prior_action")[:] = np.clip(actions, -1, 1)

    def state(self) -> dict[str, torch.Tensor]:
        """Prior and thresholds as tensors by name."""
        thresholds = torch.tensor([self._next_successes, self._next_episodes])
        return {**self.prior.state(), "self_imitation": thresholds}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`.

        Raises:
            ModelError: it is of another prior.
        """
        self.prior.load_state(tensors)
        if "self_imitation" not in tensors:
            raise ModelError("the checkpoint is of a run without learning.self_imitation")
        self._next_successes, self._next_episodes = tensors["self_imitation"].tolist()
        self.update_stored_actions(None)
