"""Stages and true progress of the 50 Meta-World tasks, defined once for all of them.

Meta-World's own ``info`` means different things in different tasks (``near_object`` is a distance in some and a flag in
others, ``grasp_success`` is constantly 1 where nothing is grasped, ``obj_to_target`` is constantly 0 in five), so each
task has three facts beside its name: whether the object is grasped, how far the object's reference point lies from the
fingers when it begins to move, and what is left of the way when the task counts as done. They were measured on the
scripted experts.

    moved    fraction of the way from the object's start to where the task is done, from ``obj_to_target``
    reached  fraction of the hand's way to the object
    progress moved + (1 - moved) * reached / 2, and 1 on success
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GRASPING = ("reach", "grasp", "move")
PUSHING = ("reach", "move")
REACHING = ("reach",)

HAND_SHARE = 0.5
"""Progress when the hand has come to the object."""
NEAR = 0.03
"""Way (m) that the fingers may be further from the object than where it began to move, and still be at it."""
BEGUN = 0.05
"""Share of its way, or lift in m, from which an object counts as moving."""


@dataclass(frozen=True)
class TaskFacts:
    """What is known of one task.

    Attributes:
        stages: names of its stages.
        touch: distance (m) of the fingers from the object's reference point when it begins to move.
        arrival: what is left of the object's way when the task is done, in the measure's unit.
        measure: what gives the way left: ``target`` is info's ``obj_to_target`` (m), ``object`` the distance of the
            object from the goal in the observation (m), ``place`` one minus info's ``in_place_reward``.
    """

    stages: tuple[str, ...]
    touch: float
    arrival: float
    measure: str = "target"


TASKS: dict[str, TaskFacts] = {
    "assembly": TaskFacts(GRASPING, 0.01, 0.132, "object"),
    "basketball": TaskFacts(GRASPING, 0.01, 0.077),
    "bin-picking": TaskFacts(GRASPING, 0.01, 0.046),
    "box-close": TaskFacts(GRASPING, 0.02, 0.076, "object"),
    "button-press": TaskFacts(PUSHING, 0.12, 0.020),
    "button-press-topdown": TaskFacts(PUSHING, 0.02, 0.022),
    "button-press-topdown-wall": TaskFacts(PUSHING, 0.05, 0.022),
    "button-press-wall": TaskFacts(PUSHING, 0.05, 0.028),
    "coffee-button": TaskFacts(PUSHING, 0.13, 0.012),
    "coffee-pull": TaskFacts(GRASPING, 0.02, 0.068),
    "coffee-push": TaskFacts(GRASPING, 0.02, 0.066),
    "dial-turn": TaskFacts(PUSHING, 0.07, 0.069),
    "disassemble": TaskFacts(GRASPING, 0.01, 0.117, "object"),
    "door-close": TaskFacts(PUSHING, 0.12, 0.071),
    "door-lock": TaskFacts(PUSHING, 0.03, 0.019),
    "door-open": TaskFacts(PUSHING, 0.07, 0.085, "object"),
    "door-unlock": TaskFacts(PUSHING, 0.08, 0.017),
    "drawer-close": TaskFacts(PUSHING, 0.08, 0.063),
    "drawer-open": TaskFacts(PUSHING, 0.08, 0.026),
    "faucet-close": TaskFacts(PUSHING, 0.06, 0.064),
    "faucet-open": TaskFacts(PUSHING, 0.06, 0.064),
    "hammer": TaskFacts(GRASPING, 0.03, 0.185, "object"),
    "hand-insert": TaskFacts(GRASPING, 0.01, 0.045),
    "handle-press": TaskFacts(PUSHING, 0.05, 0.016),
    "handle-press-side": TaskFacts(PUSHING, 0.03, 0.017),
    "handle-pull": TaskFacts(PUSHING, 0.04, 0.049),
    "handle-pull-side": TaskFacts(PUSHING, 0.01, 0.080),
    "lever-pull": TaskFacts(PUSHING, 0.17, 0.016, "place"),
    "peg-insert-side": TaskFacts(GRASPING, 0.02, 0.064),
    "peg-unplug-side": TaskFacts(GRASPING, 0.02, 0.068),
    "pick-out-of-hole": TaskFacts(GRASPING, 0.02, 0.067),
    "pick-place": TaskFacts(GRASPING, 0.01, 0.066),
    "pick-place-wall": TaskFacts(GRASPING, 0.01, 0.067),
    "plate-slide": TaskFacts(PUSHING, 0.05, 0.066),
    "plate-slide-back": TaskFacts(PUSHING, 0.06, 0.065),
    "plate-slide-back-side": TaskFacts(PUSHING, 0.03, 0.065),
    "plate-slide-side": TaskFacts(PUSHING, 0.07, 0.065),
    "push": TaskFacts(GRASPING, 0.02, 0.048),
    "push-back": TaskFacts(GRASPING, 0.01, 0.062),
    "push-wall": TaskFacts(GRASPING, 0.02, 0.066),
    "reach": TaskFacts(REACHING, 0.0, 0.050),
    "reach-wall": TaskFacts(REACHING, 0.0, 0.048),
    "shelf-place": TaskFacts(GRASPING, 0.01, 0.068),
    "soccer": TaskFacts(PUSHING, 0.05, 0.067),
    "stick-pull": TaskFacts(GRASPING, 0.01, 0.120),
    "stick-push": TaskFacts(GRASPING, 0.03, 0.114),
    "sweep": TaskFacts(GRASPING, 0.01, 0.044),
    "sweep-into": TaskFacts(GRASPING, 0.02, 0.046),
    "window-close": TaskFacts(PUSHING, 0.15, 0.046),
    "window-open": TaskFacts(PUSHING, 0.14, 0.044),
}


@dataclass(frozen=True)
class Start:
    """The beginning of an episode, from which shares are taken.

    Attributes:
        way: what the measure says is left of the object's way.
        distance: of the fingers from the object, m.
        height: of the object, m.
    """

    way: float
    distance: float
    height: float


def way_left(facts: TaskFacts, observation: npt.NDArray[np.float64], info: Mapping[str, float]) -> float:
    """What is left of the object's way, by the task's own measure.

    Args:
        facts: of the task.
        observation: Meta-World's own, (39,): hand, gripper, object, ... and the goal in the last three.
        info: Meta-World's own.
    """
    if facts.measure == "object":
        return math.dist(observation[4:7], observation[36:39])
    if facts.measure == "place":
        return 1.0 - float(info["in_place_reward"])
    return float(info["obj_to_target"])


def stage_and_progress(
    facts: TaskFacts,
    start: Start,
    observation: npt.NDArray[np.float64],
    fingers: npt.NDArray[np.float64],
    info: Mapping[str, float],
) -> tuple[int, float]:
    """Stage (index into ``facts.stages``) and progress in [0, 1], exactly 1 on success.

    Args:
        facts: of the task.
        start: the beginning of this episode.
        observation: Meta-World's own, (39,).
        fingers: place between the fingers, (3,) m.
        info: Meta-World's own.
    """
    last = len(facts.stages) - 1
    if info["success"]:
        return last, 1.0
    moved = _share(start.way - way_left(facts, observation, info), start.way - facts.arrival)
    if facts.stages == REACHING:
        return 0, min(moved, 0.999)
    distance = math.dist(fingers, observation[4:7])
    reached = 1.0 - _share(distance - facts.touch, max(start.distance - facts.touch, NEAR))
    progress = min(moved + (1.0 - moved) * HAND_SHARE * reached, 0.999)
    if distance > facts.touch + NEAR:
        return 0, progress
    lifted = facts.stages == GRASPING and float(observation[6]) - start.height > BEGUN
    if moved > BEGUN or lifted:
        return last, progress
    return (1 if facts.stages == GRASPING else 0), progress


def _share(part: float, whole: float) -> float:
    return min(max(part / max(whole, 1e-6), 0.0), 1.0)
