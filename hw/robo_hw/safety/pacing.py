"""How fast to run along the path: a jerk-limited speed that can always be brought to zero.

The path parameter x(t) has piecewise constant x''' . At every tick the pace holds a *stop plan*, three phases of
constant x''' that end at rest, checked against the bounds of every piece that they touch. A tick is taken only if,
after it, another checked stop plan exists; if no candidate passes, the tick follows the plan that is already there.
So the limits hold at every tick and a stop plan always exists, by induction and not by tuning.

Speed is one number for all joints: slowing keeps the path, it does not bend it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from robo_hw.safety.spline import ControlPath

_TRIES = 5
"""Bisections between the fastest wish and braking; each is checked, so more only buy smoothness."""


@dataclass(frozen=True)
class StopPlan:
    """Three phases of constant x''' that end at rest: go to the deceleration -a, hold it, release it."""

    phases: tuple[tuple[float, float], ...]
    """(duration s, x''' in actions/s^3)."""
    duration: float
    """Seconds to rest: the computed bound on the stop time."""
    last_piece: int
    """The last piece of the path that it touches."""
    acceleration: float
    """Bound on |x''| that it keeps, actions/s^2."""
    jerk: float
    """Bound on |x'''| that it keeps, actions/s^3."""


RESTING = StopPlan((), 0.0, -1, 0.0, 0.0)


def plan_stop(path: ControlPath, x: float, rate: float, acceleration: float) -> StopPlan | None:
    """A stop from (x, x', x'') within the bounds of every piece it touches, or None where there is none."""
    here = int(x)
    if rate <= 0.0 and acceleration == 0.0:
        return StopPlan((), 0.0, here, 0.0, 0.0)
    last = here
    top, most, jerk = path.window(here, here)
    while True:  # ends: the window only grows, and beyond the path's end its bounds no longer change
        if abs(acceleration) > most:
            return None
        # Bringing x'' to 0 at jerk j takes |x''| / j seconds and changes x' by x''^2 / (2 j).
        spent = acceleration * acceleration / (2 * jerk)
        peak = rate + spent if acceleration > 0 else rate
        if peak > top:
            return None
        if acceleration < 0 and spent > rate:
            return None  # cannot release the brake before running backwards
        # Deceleration a reached without holding it, by what the phases take off x':
        #   (a^2 - x''^2) / (2 j) to reach -a from x'',  a^2 / (2 j) to release it:   a^2 / j - x''^2 / (2 j) = x'
        deepest = sqrt(jerk * (rate + spent))
        if deepest <= most:
            hold = 0.0
        else:
            deepest = most
            # a is bounded: what is left of x' is taken off at constant a, in (x' + x''^2 / (2 j) - a^2 / j) / a seconds
            hold = (rate + spent - deepest * deepest / jerk) / deepest
        apply, release = (deepest + acceleration) / jerk, deepest / jerk
        if apply < 0.0:
            apply = 0.0
        # Where it ends: x after each phase in turn.
        end, _, _ = _after(x, rate, acceleration, apply, -jerk)
        speed = rate + acceleration * apply - 0.5 * jerk * apply * apply
        end += (speed - 0.5 * deepest * hold) * hold
        speed -= deepest * hold
        # Release from -deepest to 0 covers jerk * release^3 / 6 when it ends at rest.
        end += max(speed, 0.0) * release - 0.5 * deepest * release**2 + jerk * release**3 / 6
        # A hair beyond the computed end, so that rounding never lands in a piece that was not checked.
        touched = int(end + 1e-9)
        if touched <= last:
            phases = ((apply, -jerk), (hold, 0.0), (release, jerk))
            return StopPlan(phases, apply + hold + release, last, max(deepest, abs(acceleration)), jerk)
        if last < path.pieces:
            more = path.window(last + 1, touched)
            top, most, jerk = min(top, more[0]), min(most, more[1]), min(jerk, more[2])
        last = touched


def _after(x: float, rate: float, acceleration: float, time: float, jerk: float) -> tuple[float, float, float]:
    # x(t) = x + x' t + x'' t^2 / 2 + j t^3 / 6, and its first two derivatives
    return (
        x + (rate + (0.5 * acceleration + jerk * time / 6) * time) * time,
        rate + (acceleration + 0.5 * jerk * time) * time,
        acceleration + jerk * time,
    )


class Pace:
    """Where on the path the arm is, how fast it runs, and the stop plan that it holds.

    ``x`` actions, ``rate`` actions/s, ``acceleration`` actions/s^2. ``max_stop_time``: no plan longer than this is
    ever held.
    """

    def __init__(self, path: ControlPath, max_stop_time: float) -> None:
        self.path = path
        self.x = 0.0
        self.rate = 0.0
        self.acceleration = 0.0
        self.max_stop_time = max_stop_time
        self.plan = RESTING
        self._done = 0.0
        """Seconds of the stop plan already used."""
        self.held_back = False
        """Whether the last tick was slower than wished because of a limit."""

    @property
    def resting(self) -> bool:
        """Whether the pace is zero."""
        return self.rate == 0.0 and self.acceleration == 0.0

    @property
    def stop_time(self) -> float:
        """Seconds from now to rest if the stop plan is followed."""
        return max(self.plan.duration - self._done, 0.0)

    @property
    def last_piece(self) -> int:
        """The last piece of the path that may not be changed any more."""
        return max(self.plan.last_piece, int(self.x))

    def swap(self, path: ControlPath, dropped: int, replaced_from: int) -> bool:
        """Go on along ``path``, whose first ``dropped`` points are gone, if the arm can still stop on it.

        ``replaced_from``: index (in the new path) of the first control point that differs. Returns False, and changes
        nothing, where no stop within the limits exists.
        """
        x = self.x - dropped
        if self.last_piece - dropped + 3 < replaced_from:
            plan, done = self.plan, self._done  # the plan touches nothing that changed
            plan = StopPlan(plan.phases, plan.duration, plan.last_piece - dropped, plan.acceleration, plan.jerk)
        else:
            found = plan_stop(path, x, self.rate, self.acceleration)
            if found is None or found.duration > self.max_stop_time:
                return False
            plan, done = found, 0.0
        self.path, self.x, self.plan, self._done = path, x, plan, done
        return True

    def _along_plan(self, time: float) -> tuple[float, float, float]:
        """The state after following the stop plan for ``time`` seconds."""
        x, rate, acceleration = self.x, self.rate, self.acceleration
        skip, left = self._done, time
        for duration, jerk in self.plan.phases:
            if skip >= duration:
                skip -= duration
                continue
            step = min(duration - skip, left)
            skip = 0.0
            x, rate, acceleration = _after(x, rate, acceleration, step, jerk)
            left -= step
            if left <= 0.0:
                break
        return x, rate, acceleration

    def braked(self, time: float) -> tuple[float, float, float]:
        """(x, x', x'') if the stop plan were followed for ``time`` seconds from now; at rest from its end on."""
        x, rate, acceleration = self._along_plan(time)
        return (x, max(rate, 0.0), acceleration) if time < self.stop_time else (x, 0.0, 0.0)

    def brake(self, time: float) -> None:
        """Follow the stop plan for ``time`` seconds."""
        x, rate, acceleration = self._along_plan(time)
        self._done += time
        if self._done >= self.plan.duration:
            # What is left is rounding of the last phase.
            self.x, self.rate, self.acceleration = x, 0.0, 0.0
            self.plan, self._done = StopPlan((), 0.0, int(x), 0.0, 0.0), 0.0
        else:
            self.x, self.rate, self.acceleration = x, max(rate, 0.0), acceleration

    def run(self, time: float, wish: float) -> None:
        """Move for ``time`` seconds towards the speed ``wish`` (actions/s), as fast as a checked stop allows."""
        self.held_back = False
        if time <= 0.0:
            return
        wanted = self._wanted(time, wish)
        found = self._check(time, wanted)
        if found is not None:
            self._take(found)
            return
        self.held_back = True
        # The constant x''' that brings the tick to the acceleration of the stop plan: zero at rest.
        low, high = (self._along_plan(time)[2] - self.acceleration) / time, wanted
        best = None
        for _ in range(_TRIES):
            middle = 0.5 * (low + high)
            found = self._check(time, middle)
            if found is None:
                high = middle
            else:
                low, best = middle, found
        if best is None:
            self.brake(time)
        else:
            self._take(best)

    def _wanted(self, time: float, wish: float) -> float:
        """The x''' that reaches ``wish`` soonest without overshoot."""
        here = int(self.x)
        _, most, jerk = self.path.window(here, here + 1)
        error = wish - self.rate
        size = abs(error)
        # Releasing x'' at jerk j changes x' by x''^2 / (2 j): |x''| = sqrt(2 j |error|) would just end at the wish.
        # With 1.2 instead of 2, and |error| / (3 ticks) near the end, no tick steps over it.
        goal = min(most, sqrt(1.2 * jerk * size), size / (3 * time))
        wanted = ((goal if error > 0 else -goal) - self.acceleration) / time
        return min(max(wanted, -jerk), jerk)

    def _check(self, time: float, jerk: float) -> tuple[float, float, float, StopPlan] | None:
        """The state after a tick at constant x''' and its stop plan, if both keep every bound."""
        start = self.acceleration
        x, rate, acceleration = _after(self.x, self.rate, start, time, jerk)
        if rate < 0.0:
            return None
        slowest, fastest = (self.rate, rate) if rate > self.rate else (rate, self.rate)
        if start * acceleration < 0.0:  # the speed turns within the tick
            # x' is extreme where x'' = 0, at t = -x''/j:   x' - x''^2 / (2 j)
            turn = self.rate - start * start / (2 * jerk)
            slowest, fastest = min(slowest, turn), max(fastest, turn)
        if slowest < 0.0:
            return None
        top, most, hardest = self.path.window(int(self.x), int(x + 1e-9))
        if fastest > top or abs(start) > most or abs(acceleration) > most or abs(jerk) > hardest:
            return None
        plan = plan_stop(self.path, x, rate, acceleration)
        if plan is None or plan.duration > self.max_stop_time:
            return None
        return x, rate, acceleration, plan

    def _take(self, found: tuple[float, float, float, StopPlan]) -> None:
        self.x, self.rate, self.acceleration, self.plan = found
        self._done = 0.0
