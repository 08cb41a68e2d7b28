"""Which dimensions of vectors never change, judged by their own scale and never by a fixed threshold.

A dimension that never changes must not be divided by its (zero) deviation. Whether it changes cannot be told by an
absolute number: delta poses at 100 Hz have deviations of 5e-5 m, a joint held still has encoder noise of 1e-6 rad, a
clock counts in 1e9 s. So a dimension is constant if it is exactly so, or if its range is within what float32, in
which networks compute, can tell apart at its offset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

# Steps of float32 at the greatest magnitude: an affine map rounds by one or two of them.
ULPS = 4
RESOLUTION = ULPS * float(np.finfo(np.float32).eps)


def constant(low: npt.ArrayLike, high: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """(D,) True where values from ``low`` to ``high`` (D,) are the same number to float32."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    reach = np.maximum(np.abs(low), np.abs(high))
    return np.asarray(high - low <= RESOLUTION * reach)


def mean_and_scale(values: npt.ArrayLike) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation (D,) float32 of values (N, D); the deviation of a constant dimension is 1."""
    rows = np.asarray(values, dtype=np.float64)
    still = constant(rows.min(axis=0), rows.max(axis=0))
    return rows.mean(axis=0).astype(np.float32), np.where(still, 1.0, rows.std(axis=0)).astype(np.float32)


def describe_constant(
    still: Mapping[str, npt.NDArray[np.bool_]], names: Mapping[str, Sequence[str] | None] | None = None
) -> str:
    """The constant dimensions in words, ``action[2] (gripper), observation.state[0]``; empty where there is none.

    Args:
        still: key -> (D,) bool.
        names: key -> D names of its dimensions, where they are known.
    """
    parts = []
    for key, mask in still.items():
        known = (names or {}).get(key) or ()
        for place in np.flatnonzero(mask).tolist():
            named = f" ({known[place]})" if place < len(known) else ""
            parts.append(f"{key}[{place}]{named}")
    return ", ".join(parts)
