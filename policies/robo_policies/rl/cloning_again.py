"""The clone that proposes actions learns again, from what has succeeded by now: the learner's own episodes among it.

Demonstrations that were given up make a clone that gives up. What the learner itself brought to success is a better
thing to clone, and the clone of a handful of such episodes reproduces them long before critics have learnt what they
were worth (self-imitation, arXiv 1806.05635, through IBRL's proposals, arXiv 2311.02198). It is only a proposal:
critics decide. So the clone is trained anew whenever the number of successful episodes has doubled.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from robo_datasets.errors import ModelError
from robo_policies.rl.decisions import ENVIRONMENT_STATE, STATE
from robo_policies.rl.proposals import ClonedDecisions
from robo_policies.rl.replay import Floats, Replay

FEWEST = 4
"""Successful episodes of the learner's own from which the clone is trained anew; then twice as many, and so on."""


class CloneOfSuccess:
    """Trains a clone anew, and replaces what it had proposed in the replays.

    Args:
        clone: proposes to the worlds; learns in place.
        demonstrations: what it was cloned from.
        steps: of its training.
        dims: key -> D of the observations.
    """

    def __init__(self, clone: ClonedDecisions, demonstrations: Replay, steps: int, dims: Mapping[str, int]) -> None:
        self.clone, self._demonstrations, self._steps = clone, demonstrations, steps
        self._keys = [(key, dims[key]) for key in (STATE, ENVIRONMENT_STATE) if key in dims]
        self._due = FEWEST

    def learn(self, own: Replay) -> bool:
        """Train the clone anew if the learner's own successes have become enough for that; returns whether it was."""
        places = own.led_to_success
        successes = len(np.unique(own["episode"][places]))
        if successes < self._due:
            return False
        while self._due <= successes:
            self._due *= 2
        shown = self._demonstrations.led_to_success
        seen, taken = (
            np.concatenate([own[name][places], self._demonstrations[name][shown]]) for name in ("observation", "action")
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
        return {**self.clone.state(), "clone_due": torch.tensor(self._due)}

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`.

        Raises:
            ModelError: it is of another clone.
        """
        self.clone.load_state(held)
        if "clone_due" not in held:
            raise ModelError("the checkpoint is of a run whose clone does not learn again")
        self._due = int(held["clone_due"])
        self.propose(None)
