"""Where demonstrations begin: an arm that is armed elsewhere is in a place that no policy has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robo_policies.feature_names import NamesError, flat_names

if TYPE_CHECKING:
    from robo_datasets import DemoStore
    from robo_policies.cloning.windows import Demonstrations

STATE = "observation.state"


def start_poses(store: DemoStore, demonstrations: Demonstrations) -> dict[str, list[float]] | None:
    """Joint -> [lowest, highest] of the demonstrations' first states, as ``SafetyCore.arm`` takes them.

    None where the demonstrations have no joint states, or these no names.
    """
    states = demonstrations.arrays.get(STATE)
    try:
        names = flat_names(store.features[STATE]["names"] if STATE in store.features else None)
    except NamesError:
        return None
    if states is None or names is None or len(names) != states.shape[1]:
        return None
    first = np.asarray(states[demonstrations.starts[: len(demonstrations.uuids)]], np.float64)
    low, high = first.min(axis=0), first.max(axis=0)
    return {str(name): [float(low[i]), float(high[i])] for i, name in enumerate(names)}
