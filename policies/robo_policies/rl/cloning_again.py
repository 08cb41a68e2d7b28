"""What the clone that proposes actions learns from: what came furthest, and what has succeeded by now.

Demonstrations that were given up make a clone that gives up. Where a reward model sees progress, only those decisions
are cloned whose episode then came further than others did from the same progress, in the demonstrations and in the
learner's own episodes. That is reward-aligned cloning (SARM, arXiv 2509.25358) with the progress to come, less what
is usual, for the progress of the next moments (advantage-weighted regression, arXiv 1910.00177, with weights of 0 and
1): a clone of whatever made some progress halts where that usually ends, while this one climbs. What the learner itself
brought to success came furthest of all, and the clone of a handful of such episodes reproduces them long before critics
have learnt what they were worth (self-imitation, arXiv 1806.05635, through IBRL's proposals, arXiv 2311.02198). It is
only a proposal: critics decide, by a reward that all this does not touch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.decisions import ENVIRONMENT_STATE, STATE
from robo_policies.rl.proposals import ClonedDecisions
from robo_policies.rl.replay import Floats, Replay

FEWEST = 4
"""Successful episodes of the learner's own from which the clone is trained anew; then by `growth` more, and so on."""
FEWEST_EPISODES = 4
"""Episodes of its own, successful or not, after which an aligned clone is; then by `growth` more, until some succeed
(fewer than FEWEST)."""
NOISE = 0.005
"""Differences of progress that are no gain at all."""
LIKE = 0.08
"""Standard deviation of the weights by which decisions at other progress count for what is usual."""
LEVELS = 101
"""Steps of progress between 0 and 1 at which that is worked out."""


def came_further(*replays: Replay) -> list[npt.NDArray[np.bool_]]:
    """(size,) for each replay: whether a decision led to success, or at least as far as is usual from there.

    What is usual at some progress is the mean, over the decisions of all these replays at about that progress, of the
    highest that their episodes came to afterwards.
    """
    here = np.concatenate([replay["potential"] for replay in replays])
    best = np.concatenate([replay.best_to_come() for replay in replays])
    succeeded = np.concatenate([replay["succeeded"] for replay in replays])
    levels = np.linspace(0, 1, LEVELS)
    place = np.rint(np.clip(here, 0, 1) * (LEVELS - 1)).astype(np.int64)
    near = np.exp(-0.5 * np.square((levels[:, None] - levels) / LIKE))
    sums, counts = (near @ np.bincount(place, what, LEVELS) for what in (best, None))
    usual = (sums / np.maximum(counts, 1e-9))[place]
    further = succeeded | ((best > usual - NOISE) & (best - here > NOISE))
    return np.split(further, np.cumsum([len(replay) for replay in replays])[:-1])


class CloneOfSuccess:
    """Trains a clone, anew when there is more to learn from, and replaces what it had proposed in the replays.

    Args:
        clone: proposes to the worlds; learns in place.
        demonstrations: what is cloned first.
        steps: of its training.
        dims: key -> D of the observations.
        growth: factor of successes, or of episodes, between two trainings.
        aligned: clone what made progress by the potential, rather than everything, until some episodes succeed.

    Raises:
        ConfigError: a growth that is not above 1.
    """

    def __init__(
        self,
        clone: ClonedDecisions,
        demonstrations: Replay,
        steps: int,
        dims: Mapping[str, int],
        growth: float,
        aligned: bool = False,
    ) -> None:
        if not 1 < growth < math.inf:
            raise ConfigError(f"learning.clone_growth={growth:g}: give a factor above 1")
        self.clone, self._demonstrations, self._steps = clone, demonstrations, steps
        self._keys = [(key, dims[key]) for key in (STATE, ENVIRONMENT_STATE) if key in dims]
        self._due, self._due_episodes, self._growth = FEWEST, FEWEST_EPISODES, growth
        self._aligned = aligned and bool((demonstrations.best_to_come() - demonstrations["potential"] > NOISE).any())

    def begin(self) -> float:
        """Clone the demonstrations; returns the error of the clone."""
        shown = self._demonstrations
        chosen = came_further(shown)[0] if self._aligned else np.ones(len(shown), dtype=bool)
        error = self.clone.train(shown["observation"][chosen], shown["action"][chosen], self._steps)
        self.propose(None)  # it learnt from the demonstrations only after they were laid out
        return error

    def learn(self, own: Replay) -> bool:
        """Train the clone anew if there is enough more to learn from; returns whether it was."""
        successes = len(np.unique(own["episode"][own.led_to_success]))
        if successes >= FEWEST:
            if successes < self._due:
                return False
            while self._due <= successes:
                self._due = math.ceil(self._due * self._growth)
        else:
            episodes = len(np.unique(own["episode"]))
            if not self._aligned or episodes < self._due_episodes:
                return False
            while self._due_episodes <= episodes:
                self._due_episodes = math.ceil(self._due_episodes * self._growth)
        replays = (own, self._demonstrations)
        chosen = came_further(*replays) if self._aligned else [replay["succeeded"] for replay in replays]
        seen, taken = (
            np.concatenate([own[name][chosen[0]], self._demonstrations[name][chosen[1]]])
            for name in ("observation", "action")
        )
        self.clone.train(seen, taken, self._steps)
        self.propose(own)
        return True

    def propose(self, own: Replay | None) -> None:
        """Write what the clone proposes now into the demonstrations and the learner's own decisions."""
        for replay in (self._demonstrations, own):
            if replay is not None and len(replay):
                replay["next_proposal"][:] = self._proposals(replay["next_observation"])

    def _proposals(self, seen: Floats) -> npt.NDArray[np.float32]:
        parts, start = {}, 0
        for key, size in self._keys:
            parts[key] = seen[:, start : start + size]
            start += size
        return np.clip(self.clone(parts), -1, 1)

    def state(self) -> dict[str, torch.Tensor]:
        """Clone and count as tensors by name."""
        return {**self.clone.state(), "clone_due": torch.tensor([self._due, self._due_episodes])}

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`.

        Raises:
            ModelError: it is of another clone.
        """
        self.clone.load_state(held)
        if "clone_due" not in held:
            raise ModelError("the checkpoint is of a run whose clone does not learn again")
        self._due, self._due_episodes = held["clone_due"].tolist()
        self.propose(None)
