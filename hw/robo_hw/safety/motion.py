"""The motion under way: the path of control points, the pace along it, and how chunks are spliced in."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.safety.chunk import Shortened, SubmitResult, check_steps, dropped, inside_limits, saturated
from robo_hw.safety.pacing import Pace
from robo_hw.safety.schedule import LEAD, MODES, TemporalEnsemble, actions_at, index_range, nearness, overlap_weights
from robo_hw.safety.spline import ControlPath, PathLimits

_AHEAD = 3
"""A piece of the path is shaped by the control point at its start and the three after it."""


class Motion:
    """A hold, or a motion along a path; both have a position, velocity and acceleration at every moment.

    Control points are numbered from the core's start, through all holds and stops (``consumed`` counts them), so a
    chunk can say where it belongs by the moment of its observation.
    """

    def __init__(self, contract: RobotContract, mode: str, ensemble_decay: float) -> None:
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is not a way to schedule chunks; choose one of: {', '.join(MODES)}")
        self._contract = contract
        self._mode = mode
        self._limits = PathLimits(
            contract.array("velocity"),
            contract.array("acceleration"),
            contract.array("jerk"),
            contract.rates.actions,
            contract.safety.reserve,
        )
        self._low, self._high = contract.array("position").T
        self._ensemble = TemporalEnsemble(ensemble_decay)
        self._history: deque[tuple[float, float]] = deque(maxlen=20_000)
        self._keep = contract.deadlines.chunk + 1.0
        self._base = 0
        self.moving = False
        self.shortened: Shortened | None = None
        """What the last chunk asked beyond the position limits, if it did."""
        self.hold(np.zeros(len(contract.joints)))

    def hold(self, position: np.ndarray) -> None:
        """Rest at ``position`` (D,)."""
        self._base = math.ceil(self.consumed) if self.moving else self._base
        self.moving = False
        self._held = position.astype(np.float64)
        self._ensemble.clear()
        path = ControlPath(np.repeat(position[None].astype(np.float64), _AHEAD, axis=0), self._base, self._limits)
        self.pace = Pace(path, self._contract.safety.max_stop_time)

    def settle(self) -> None:
        """Hold where the motion has come to rest."""
        self.hold(self.state()[0])

    @property
    def consumed(self) -> float:
        """Actions consumed since the core started: the path parameter, counted through all paths."""
        return self.pace.path.origin + self.pace.x if self.moving else float(self._base)

    @property
    def finished(self) -> bool:
        """Whether no actions are left; the arm rests on its last point."""
        return self.pace.x >= self.pace.path.pieces

    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joint positions, velocities and accelerations now, each (D,)."""
        pace = self.pace
        if not self.moving:
            rest = np.zeros_like(self._held)
            return self._held.copy(), rest, rest.copy()
        position, velocity, acceleration = pace.path.evaluate(pace.x, pace.rate, pace.acceleration)
        # The path lies inside the limits; this only takes back the last bit that rounding may add.
        return np.minimum(np.maximum(position, self._low), self._high), velocity, acceleration

    def braking(self, step: float) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """The stop plan down to rest: (seconds from now, positions (D,), velocities (D,)), at most ``step`` s apart."""
        pace = self.pace
        count = math.ceil(pace.stop_time / step) if self.moving else 0
        # The last is the end itself: n * (t / n) may fall short of t by a bit, and the arm would not rest there.
        moments = [pace.stop_time * i / count for i in range(1, count)] + [pace.stop_time] * (count > 0)
        states = [(moment, *pace.path.evaluate(*pace.braked(moment))) for moment in moments]
        return [(t, np.minimum(np.maximum(q, self._low), self._high), v) for t, q, v, _ in states]

    def slowing(self) -> tuple[str, str, float, float] | None:
        """What holds the motion back here: a message, the joint, its value at full speed and its limit."""
        pace = self.pace
        found = pace.path.tightest(int(pace.x), pace.last_piece + 1)
        if found is None:
            return None
        quantity, index, value = found
        joint = self._contract.joints[index]
        limit = float(getattr(joint, quantity))
        spend = 1 - self._contract.safety.reserve
        fraction = "" if quantity == "velocity" else f" of which {spend:.0%} may follow the path"
        message = (
            f"{joint.name}: {quantity} {value:.4g} at full speed, limit {limit:.4g}{fraction}; slower along the path"
        )
        return message, joint.name, value, limit

    def note(self, now: float) -> None:
        """Remember how much was consumed at ``now``, for chunks observed about now."""
        history = self._history
        history.append((now, self.consumed))
        while len(history) > 2 and history[1][0] < now - self._keep:
            history.popleft()

    def consumed_at(self, time: float) -> float:
        """Actions consumed at an earlier moment, interpolated between ticks."""
        later: tuple[float, float] | None = None
        for entry in reversed(self._history):
            if entry[0] <= time:
                if later is None or later[0] <= entry[0]:
                    return entry[1]
                fraction = (time - entry[0]) / (later[0] - entry[0])
                return entry[1] + fraction * (later[1] - entry[1])
            later = entry
        return later[1] if later is not None else self.consumed

    def committed(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """What a policy that inpaints should keep of its next chunk, observed now.

        Returns actions (H, D), the motion under way at the places of the next chunk's actions, and weights (H,): 1
        where it can no longer change, falling to 0 where the old motion ends (real-time chunking, arXiv 2506.07339).
        """
        path, observed = self.pace.path, self.consumed
        places = np.arange(horizon, dtype=np.float64)
        index = np.clip(observed + LEAD + places - path.origin, 0, len(path.points) - 1)
        below = index.astype(np.int64)
        above = np.minimum(below + 1, len(path.points) - 1)
        fraction = (index - below)[:, None]
        actions = path.points[below] * (1 - fraction) + path.points[above] * fraction
        if not self.moving:
            return actions, np.zeros(horizon)
        frozen = path.origin + self.pace.last_piece + _AHEAD + 1 - observed - LEAD
        return actions, overlap_weights(places, frozen, path.origin + len(path.points) - observed - LEAD)

    def splice(self, actions: np.ndarray, observed: float) -> SubmitResult:
        """Put a chunk's actions (H, D), observed when ``observed`` actions were consumed, into the path.

        The earliest control point that the present piece does not touch is tried first; where the arm could then not
        stop in time, a later one is; behind the stop plan it always can.
        """
        pace, old = self.pace, self.pace.path
        here = int(pace.x)
        first = old.origin + (here + _AHEAD + 1 if self.moving else _AHEAD)
        safe = max(first, old.origin + pace.last_piece + _AHEAD + 1)
        start, stop = index_range(actions, observed, first)
        if start >= stop:
            return dropped(
                f"all {len(actions)} actions were consumed before it came; send longer chunks or observe later"
            )
        indices = np.arange(start, stop)
        fresh = saturated(actions_at(actions, observed, indices), self._contract)
        wild = check_steps(fresh[:1], self._contract, before=self._point(start - 1))
        if wild is not None:
            return wild
        if self._mode == "temporal_ensemble":
            fresh = self._ensemble.merge(fresh, indices, nearness(indices - observed - LEAD, len(actions)))
        for begin in dict.fromkeys((start, (start + safe + 1) // 2, safe)):
            if begin >= stop:
                break
            rows, used = fresh[begin - start :], indices[begin - start :]
            if self._mode == "real_time" and self.moving:
                rows = self._blend(rows, used, observed)
            kept = np.stack([self._point(index) for index in range(old.origin + here, begin)])
            held, shortened = inside_limits(rows, kept[-1], self._contract)
            path = ControlPath(np.concatenate([kept, held]), old.origin + here, self._limits)
            changed = min(begin - old.origin, len(old.points)) - here
            if pace.swap(path, dropped=here, replaced_from=changed):
                self.moving, self.shortened = True, shortened
                return SubmitResult(True, "accepted", used=len(rows))
        return dropped("the arm cannot take it up before its last action; send longer chunks")

    def _point(self, index: int) -> np.ndarray:
        path = self.pace.path
        return path.points[min(index - path.origin, len(path.points) - 1)]

    def _blend(self, rows: np.ndarray, indices: np.ndarray, observed: float) -> np.ndarray:
        path = self.pace.path
        end = path.origin + len(path.points)
        places = indices - observed - LEAD
        keep = overlap_weights(places, float(places[0]), end - observed - LEAD)[:, None]
        old = np.stack([self._point(int(index)) for index in indices])
        return keep * old + (1.0 - keep) * rows
