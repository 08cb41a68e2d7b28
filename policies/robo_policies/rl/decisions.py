"""Worlds as a learner sees them: a vector of numbers, an action in [-1, 1]^A, a few decisions a second.

Learning at the control rate is hopeless on a small machine, so one action is carried out for several control steps.
What an action means depends on the world:

- ``hold``: worlds whose own actions lie in [-1, 1] (Meta-World's hand velocities); the action is held.
- ``targets``: worlds that take joint targets; the action is where the joints shall be at the decision's end, as a
  displacement from where they are, in units of ``reach``, and the commands in between lie on the straight line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.crew import ENVIRONMENT_STATE, STATE, Carried, Floats, LocalWorld, Member, flat
from robo_policies.rl.workers import IMAGES, LONGEST_DECISION, RemoteWorld
from robo_rm.shaping.core import decision_gold
from robo_rm.shaping.potential import TRUE_PROGRESS, Potential

HOLD, TARGETS = "hold", "targets"

Proposer = Callable[[Mapping[str, Floats]], Floats]
"""A cloned policy: observations {key: (n, D)} to actions (n, A) in [-1, 1]."""

LEAST_RISE = 0.01
"""Potential by which an episode must have come further than ever for it to count."""


@dataclass(frozen=True)
class ActionMap:
    """From actions in [-1, 1]^A to commands of the world and back.

    Attributes:
        kind: ``hold`` or ``targets``.
        repeat: control steps in a decision.
        low: (A,) least command; ``high`` likewise the most.
        high: (A,).
        reach: (A,) displacement that an action of 1 asks for; infinite where the action is absolute.
    """

    kind: str
    repeat: int
    low: Floats
    high: Floats
    reach: Floats

    def commands(self, state: Floats, action: Floats) -> Floats:
        """(repeat, A) commands that carry out an action (A,) from the measured state (A, ...)."""
        clipped = np.clip(action, -1.0, 1.0)
        if self.kind == HOLD:
            middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
            return np.repeat((middle + half * clipped)[None], self.repeat, axis=0).astype(np.float32)
        absolute = ~np.isfinite(self.reach)
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        here = state[: len(clipped)]
        move = np.where(absolute, 0.0, np.where(absolute, 1.0, self.reach) * clipped)
        goal = np.where(absolute, middle + half * clipped, here + move)
        share = (np.arange(self.repeat) + 1.0)[:, None] / self.repeat
        # An absolute command, such as a gripper's, is given at once; the others move evenly.
        path = np.where(absolute, goal, here + share * (goal - here))
        return np.clip(path, self.low, self.high).astype(np.float32)

    def action(self, state: Floats, commands: Floats) -> Floats:
        """The action (A,) that comes nearest to commands (n, A) given from a measured state."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        if self.kind == HOLD:
            return np.clip((commands.mean(axis=0) - middle) / half, -1.0, 1.0).astype(np.float32)
        absolute = ~np.isfinite(self.reach)
        goal = commands[-1]
        relative = (goal - state[: len(goal)]) / np.where(absolute, 1.0, self.reach)
        return np.clip(np.where(absolute, (goal - middle) / half, relative), -1.0, 1.0).astype(np.float32)


def action_map(space: spaces.Space[Any], repeat: int, reach: Sequence[float] | None = None) -> ActionMap:
    """How actions are carried out in a world with this action space.

    Args:
        space: of the world; bounded.
        repeat: control steps in a decision.
        reach: (A,) for worlds that take joint targets, infinite for commands that are absolute; None where actions
            are held.

    Raises:
        ConfigError: an unbounded or multi-dimensional action space, a repeat below 1, or a reach of another length.
    """
    if repeat < 1:
        raise ConfigError(f"repeat={repeat}: a decision takes one control step at least")
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
        raise ConfigError(f"learning needs a bounded vector of actions; this world has {space}")
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    if reach is None:
        return ActionMap(HOLD, repeat, low, high, np.full(len(low), np.inf, np.float32))
    asked = np.asarray(reach, dtype=np.float32)
    if asked.shape != low.shape or not (asked > 0).all():
        raise ConfigError(f"reach must be {len(low)} numbers above 0, got {list(reach)}")
    return ActionMap(TARGETS, repeat, low, high, asked)


@dataclass
class Outcome:
    """What one decision in each of N worlds came to; the fields of `Replay`, and what is wanted for the log.

    Attributes:
        rows: one array (N, ...) for each field of the replay.
        ended: (N,) the episode is over, by success or time.
        infos: the worlds' last infos.
        seeds: (N,) of the episodes that the decisions belong to.
    """

    rows: dict[str, npt.NDArray[Any]]
    ended: npt.NDArray[np.bool_]
    infos: list[dict[str, Any]]
    seeds: npt.NDArray[np.int64]


class DecisionWorlds:
    """N worlds that are stepped together; images are rendered, and scored in one batch, at decisions only.

    Args:
        worlds: the N environments, with observations ``observation.state`` and, as a rule,
            ``observation.environment_state``; in this process, or the ones of a `WorldProcesses`.
        actions: how actions are carried out.
        potential: for N environments, looking every ``actions.repeat`` steps.
        discount: g for one control step.
        seed: of the first episodes; each further episode counts on.
        propose: the cloned policy, observations {key: (n, ...)} to actions (n, A); None for none.
        patience: decisions after which an episode whose potential has not risen any further is cut off, as by a time
            limit: what follows is still bootstrapped from, so no policy gains or loses by it. 0 for never.

    Raises:
        ConfigError: no world, or a patience below 0.
    """

    def __init__(
        self,
        worlds: Sequence[gymnasium.Env[Any, Any] | RemoteWorld],
        actions: ActionMap,
        potential: Potential,
        discount: float,
        seed: int,
        propose: Proposer | None = None,
        patience: int = 0,
    ) -> None:
        if not worlds:
            raise ConfigError("give one world at least")
        if patience < 0:
            raise ConfigError(f"patience={patience}: give a number of decisions, or 0 to let every episode go on")
        self.worlds, self.actions, self.potential, self.discount = list(worlds), actions, potential, discount
        if actions.repeat > LONGEST_DECISION:
            raise ConfigError(f"repeat={actions.repeat}: a decision takes {LONGEST_DECISION} control steps at most")
        self._crew: list[Member] = [one if isinstance(one, RemoteWorld) else LocalWorld(one) for one in worlds]
        shown = worlds[0].observation_space
        assert isinstance(shown, spaces.Dict)
        # What the observations do not carry has to be rendered, at decisions only.
        self._cameras = tuple(key.removeprefix(IMAGES) for key in potential.cameras if key not in shown.spaces)
        self._pictures: list[Mapping[str, npt.NDArray[np.uint8]]] = [{} for _ in worlds]
        self._under_way: Floats | None = None
        self._next_seed, self._propose = seed, propose
        self._proposed: Floats | None = None
        count = len(worlds)
        self._seen: list[Mapping[str, Any]] = [{}] * count
        self._infos: list[dict[str, Any]] = [{} for _ in worlds]
        self._here = np.zeros(count)
        self._start = np.zeros(count)
        self._patience, self._best, self._waited = patience, np.zeros(count), np.zeros(count, dtype=np.int64)
        self._flat: list[Floats] = []
        self.seeds = np.zeros(count, dtype=np.int64)
        self._done: list[list[Floats]] = [[] for _ in worlds]

    def reset(self, which: npt.NDArray[np.int64] | None = None) -> None:
        """Begin new episodes in the worlds given, or in all."""
        self._begin(np.arange(len(self.worlds)) if which is None else which)
        self._look()

    def _begin(self, begun: npt.NDArray[np.int64]) -> None:
        for index in begun.tolist():
            self.seeds[index], self._done[index] = self._next_seed, []
            self._crew[index].start_reset(self._next_seed, self._cameras)
            self._next_seed += 1
        for index in begun.tolist():
            self._take(index, self._crew[index].finish())
        if len(begun):
            self.potential.begin(begun)
            self._here[begun] = self._score(begun)
            self._start[begun] = self._best[begun] = self._here[begun]
            self._waited[begun] = 0

    def _look(self) -> None:
        self._flat = [flat(observation) for observation in self._seen]
        self._proposed = self._proposals()

    @property
    def observation_size(self) -> int:
        """O, without the potential."""
        space = self.worlds[0].observation_space
        assert isinstance(space, spaces.Dict)
        return sum(int(np.prod(space[key].shape or ())) for key in (STATE, ENVIRONMENT_STATE) if key in space.spaces)

    def proposals(self) -> Floats | None:
        """(N, A) what the cloned policy proposes now, or None without one."""
        return self._proposed

    def propose_again(self) -> None:
        """Ask the cloned policy anew, since it has changed."""
        self._proposed = self._proposals()

    def observations(self) -> Floats:
        """(N, O + 1) what the learner sees, the potential last."""
        return np.concatenate([np.stack(self._flat), self._here[:, None]], axis=1).astype(np.float32)

    def step(self, actions: Floats) -> Outcome:
        """Carry out one decision (N, A) in every world; episodes that end begin anew.

        Raises:
            ModelError: an action or an observation is not finite.
        """
        self.start(actions)
        return self.finish()

    def start(self, actions: Floats) -> None:
        """Let every world begin to carry out a decision (N, A); worlds in other processes work from now on.

        Raises:
            ModelError: an action is not finite.
        """
        if not np.isfinite(actions).all():
            world = int(np.argwhere(~np.isfinite(actions))[0][0])
            raise ModelError(f"the policy's action for world {world} is {actions[world].tolist()}")
        self._under_way = actions
        for place, action in enumerate(actions):
            self._done[place].append(action.copy())
            self._crew[place].start(self._commands(place, action), self._cameras)

    def finish(self) -> Outcome:
        """What the decision begun with `start` came to; episodes that end begin anew.

        Raises:
            ModelError: an observation is not finite, or a world's process failed.
        """
        assert self._under_way is not None
        actions, self._under_way = self._under_way, None
        count = len(self.worlds)
        before, potential, seeds = list(self._flat), self._here.copy(), self.seeds.copy()
        gold, steps = np.zeros(count), np.zeros(count, dtype=np.int64)
        terminated, truncated = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        for place, member in enumerate(self._crew):
            carried = member.finish()
            self._take(place, carried)
            gold[place], steps[place] = decision_gold(carried.golds, self.discount), len(carried.golds)
            terminated[place], truncated[place] = carried.terminated, carried.truncated
        after = np.zeros(count)
        live = np.flatnonzero(~terminated)
        after[live] = self._score(live)
        self._here = after
        self._wait(np.arange(count))
        if self._patience:
            truncated |= (self._waited >= self._patience) & ~terminated
        self._look()
        rows: dict[str, npt.NDArray[Any]] = {
            "observation": np.stack(before),
            "next_observation": np.stack(self._flat),
            "action": np.clip(actions, -1, 1),
            "next_proposal": np.zeros_like(actions) if self._proposed is None else self._proposed,
            "gold": gold,
            "potential": potential,
            "next_potential": after.copy(),
            "start_potential": self._start.copy(),
            "terminated": terminated,
            "truncated": truncated,
            "steps": steps,
            "episode": seeds,
        }
        infos = list(self._infos)
        ended = terminated | truncated
        if ended.any():
            self.reset(np.flatnonzero(ended))
        return Outcome(rows, ended, infos, seeds)

    def snapshot(self) -> dict[str, Any]:
        """Where the worlds stand, in plain values: each episode's seed and its actions so far."""
        done = [[action.tolist() for action in actions] for actions in self._done]
        return {"next_seed": self._next_seed, "seeds": self.seeds.tolist(), "actions": done}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, by carrying out the same actions from the same seeds.

        The worlds' states are the same to the bit; potentials of several worlds, which are scored one by one here, to
        the rounding of their batches.
        """
        for place, (seed, actions) in enumerate(zip(snapshot["seeds"], snapshot["actions"], strict=True)):
            only = np.array([place])
            self._next_seed = int(seed)
            self._begin(only)
            for action in actions:
                chosen = np.array(action, dtype=np.float32)
                self._crew[place].start(self._commands(place, chosen), self._cameras)
                self._take(place, self._crew[place].finish())
                self._done[place].append(chosen)
                self._here[only] = self._score(only)
                self._wait(only)
        self._next_seed = int(snapshot["next_seed"])
        self._look()

    def _wait(self, which: npt.NDArray[np.int64]) -> None:
        """Count the decisions since the potential was last higher than ever before in its episode."""
        rose = self._here[which] > self._best[which] + LEAST_RISE
        self._waited[which] = np.where(rose, 0, self._waited[which] + 1)
        self._best[which] = np.maximum(self._best[which], self._here[which])

    def _commands(self, place: int, action: Floats) -> Floats:
        return self.actions.commands(np.asarray(self._seen[place][STATE], dtype=np.float32), action)

    def _take(self, place: int, carried: Carried) -> None:
        self._seen[place], self._infos[place] = carried.observation, carried.info
        self._pictures[place] = carried.pictures

    def _proposals(self) -> Floats | None:
        if self._propose is None:
            return None
        keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in self._seen[0]]
        seen = {key: np.stack([np.asarray(one[key], dtype=np.float32) for one in self._seen]) for key in keys}
        return np.clip(self._propose(seen), -1, 1).astype(np.float32)

    def _score(self, which: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        if not len(which):
            return np.zeros(0)
        chosen = which.tolist()
        seen = {key: np.stack([np.asarray(self._seen[i][key]) for i in chosen]) for key in self._seen[chosen[0]]}
        if all("progress" in self._infos[i] for i in chosen):
            seen[TRUE_PROGRESS] = np.array([self._infos[i]["progress"] for i in chosen], dtype=np.float64)
        for key in (IMAGES + camera for camera in self._cameras):
            seen[key] = np.stack([self._pictures[i][key] for i in chosen])
        values = np.asarray(self.potential.score(seen, which), dtype=np.float64)
        if not np.isfinite(values).all():
            raise ModelError(f"the potential of world {chosen[int(np.argmin(np.isfinite(values)))]} is not a number")
        return values
