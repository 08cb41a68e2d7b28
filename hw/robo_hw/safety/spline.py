"""The path: a uniform cubic B-spline through the actions, with exact bounds on its derivatives.

The actions are the control points. Three properties make this the right curve for action chunks:

- it lies in the convex hull of its control points: actions inside the position limits are a path inside them;
- it is twice continuously differentiable whatever the control points are: replacing points that the present piece does
  not touch is a splice that is C2 by construction;
- its derivatives are convex combinations of the differences of the control points, so the greatest first, second and
  third derivative of a piece are known exactly, without sampling.

With path parameter x (one unit an action) and piece k = floor(x), t = x - k:

    q(x)    = 1/6 [ (1-t)^3, 3t^3 - 6t^2 + 4, -3t^3 + 3t^2 + 3t + 1, t^3 ] . [c_k, c_k+1, c_k+2, c_k+3]
    |q'|   <= max |d1|      d1 the first differences of the four points
    |q''|  <= max |d2|      d2 the second differences
    q'''    = d3            the third difference

Beyond its last point the path rests there (the last point repeated), so its end is smooth too. (De Boor, A Practical
Guide to Splines, ch. IX.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEGREE = 3


@dataclass(frozen=True)
class PathLimits:
    """What the joints allow, each (D,), and how much of it may be spent on following the path."""

    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    rate: float
    """Nominal speed along the path, actions/s; never exceeded by more than ``RATE_SLACK``."""
    reserve: float
    """Fraction of acceleration and jerk left to speeding up and braking."""


RATE_SLACK = 1.0 + 1e-6
"""Room for rounding around the nominal rate."""
_GENTLE = 10.0
"""The rate changes by at most 10 x nominal per second, reached within 1/20 s, even where the joints would allow
more."""
_ACCELERATION_TO_CURVATURE = 0.4
"""Of the jerk left to braking, the fraction given to the term 3 q'' x' x''; the rest is for q' x'''."""


class ControlPath:
    """Control points (N, D) from index ``origin`` on, and for every piece how fast x may run.

    ``rate[k]``, ``acceleration[k]`` and ``jerk[k]`` bound x', |x''| and |x'''| on piece k such that for every joint

        |q' x'| <= V,   |q'' x'^2 + q' x''| <= A,   |q''' x'^3 + 3 q'' x' x'' + q' x'''| <= J.
    """

    def __init__(self, points: np.ndarray, origin: int, limits: PathLimits) -> None:
        self.points = points
        self.origin = origin
        self._limits = limits
        count = len(points)
        self.pieces = max(count - 1, 0)
        """Number of pieces on which something moves; all later ones rest at the last point."""
        self._padded = np.concatenate([points, np.repeat(points[-1:], DEGREE, axis=0)])
        first = np.abs(np.diff(self._padded, axis=0))
        second = np.abs(np.diff(self._padded, n=2, axis=0))
        third = np.abs(np.diff(self._padded, n=3, axis=0))
        n = self.pieces
        # Bounds of |q'|, |q''| and |q'''| on piece k: the greatest of the 3 first, 2 second and 1 third differences of
        # its four control points, of which each derivative is a convex combination.
        slope = np.maximum(np.maximum(first[:n], first[1 : n + 1]), first[2 : n + 2])
        bend = np.maximum(second[:n], second[1 : n + 1])
        self._parts = (slope, bend, third[:n])
        # Over all joints, each against its limit: slope_v = max |q'| / V, slope_a = max |q'| / A, and so on.
        slope_v = (slope / limits.velocity).max(axis=1)
        slope_a = (slope / limits.acceleration).max(axis=1)
        slope_j = (slope / limits.jerk).max(axis=1)
        bend_a = (bend / limits.acceleration).max(axis=1)
        bend_j = (bend / limits.jerk).max(axis=1)
        twist_j = (third[:n] / limits.jerk).max(axis=1)
        # Following the path at constant x' may use (1 - reserve) of A and J; the rest is for x'' and x'''.
        spend = 1.0 - limits.reserve
        top = limits.rate * RATE_SLACK
        gentle = _GENTLE * limits.rate
        gentle_jerk = 2 * _GENTLE * gentle
        with np.errstate(divide="ignore"):
            # x' <= V / |q'|,   x'^2 <= spend A / |q''|,   x'^3 <= spend J / |q'''|
            rate = np.minimum(top, 1.0 / slope_v)
            rate = np.minimum(rate, np.sqrt(spend / bend_a))
            rate = np.minimum(rate, np.cbrt(spend / twist_j))
            room = 1.0 - twist_j * rate**3  # of the jerk limit
            # |q'' x'^2 + q' x''| <= A:   |x''| <= (A - |q''| x'^2) / |q'|
            acceleration = np.minimum(gentle, (1.0 - bend_a * rate**2) / slope_a)
            # and 3 |q'' x' x''| may use a fixed fraction of the jerk that q''' x'^3 leaves
            acceleration = np.minimum(acceleration, _ACCELERATION_TO_CURVATURE * room / (3 * bend_j * rate))
            # |q'| |x'''| <= J - |q'''| x'^3 - 3 |q''| x' |x''|
            jerk = np.minimum(gentle_jerk, (room - 3 * bend_j * rate * acceleration) / slope_j)
        self.rate: list[float] = [*rate.tolist(), top]
        self.acceleration: list[float] = [*acceleration.tolist(), gentle]
        self.jerk: list[float] = [*jerk.tolist(), gentle_jerk]

    def window(self, first: int, last: int) -> tuple[float, float, float]:
        """The tightest rate, acceleration and jerk over pieces ``first`` to ``last``, both included."""
        n = self.pieces
        if first > n:
            first = n
        if last > n:
            last = n
        if first == last:
            return self.rate[first], self.acceleration[first], self.jerk[first]
        stop = last + 1
        return min(self.rate[first:stop]), min(self.acceleration[first:stop]), min(self.jerk[first:stop])

    def evaluate(self, x: float, rate: float, acceleration: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joint positions, velocities and accelerations, each (D,), at x moving with x' and x''."""
        k = int(x)
        if k >= self.pieces:
            rest = np.zeros_like(self.points[0])
            return self.points[-1].copy(), rest, rest.copy()
        # With t = x - k and s = 1 - t, the rows of the basis and its derivatives in x (module docstring):
        #   b   = 1/6 [s^3, 3t^3 - 6t^2 + 4, 3s^3 - 6s^2 + 4, t^3]
        #   b'  = [-s^2 / 2, 3t^2 / 2 - 2t, -3t^2 / 2 + t + 1/2, t^2 / 2]         (a0 to a3)
        #   b'' = [s, 3t - 2, 1 - 3t, t]
        # and by the chain rule q = b.c,  dq/dt = b'.c x',  d2q/dt2 = (b'' x'^2 + b' x'').c
        t = x - k
        s = 1.0 - t
        t2, s2 = t * t, s * s
        a0, a1, a2, a3 = -0.5 * s2, 1.5 * t2 - 2 * t, -1.5 * t2 + t + 0.5, 0.5 * t2
        weights = np.array(
            (
                (s2 * s / 6, (0.5 * t - 1.0) * t2 + 2 / 3, (0.5 * s - 1.0) * s2 + 2 / 3, t2 * t / 6),
                (a0 * rate, a1 * rate, a2 * rate, a3 * rate),
                (
                    s * rate * rate + a0 * acceleration,
                    (3 * t - 2) * rate * rate + a1 * acceleration,
                    (1 - 3 * t) * rate * rate + a2 * acceleration,
                    t * rate * rate + a3 * acceleration,
                ),
            )
        )
        position, velocity, bend = weights @ self._padded[k : k + 4]
        return position, velocity, bend

    def tightest(self, first: int, last: int) -> tuple[str, int, float] | None:
        """What holds the rate down most over the pieces: (quantity, joint index, value at the nominal rate)."""
        last = min(last, self.pieces - 1)
        if first > last:
            return None
        piece = min(range(first, last + 1), key=self.rate.__getitem__)
        limits, rate = self._limits, self._limits.rate
        slope, bend, twist = (part[piece] for part in self._parts)
        spend = 1.0 - limits.reserve
        demands = {
            "velocity": (slope * rate, limits.velocity, 1.0),
            "acceleration": (bend * rate**2, limits.acceleration, spend),
            "jerk": (twist * rate**3, limits.jerk, spend),
        }
        # The rate that each demand permits goes with the first, second and third root of its excess.
        power = {"velocity": 1.0, "acceleration": 1 / 2, "jerk": 1 / 3}
        best = max(
            demands,
            key=lambda name: float((demands[name][0] / (demands[name][1] * demands[name][2])).max()) ** power[name],
        )
        asked, limit, _ = demands[best]
        joint = int(np.argmax(asked / limit))
        return best, joint, float(asked[joint])
