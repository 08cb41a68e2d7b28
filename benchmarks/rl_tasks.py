"""The tasks of rl.py: a world, demonstrations that a learner is given, and what its reward model sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# A learner tries poses that no operator takes; a model that looks from the wrist, or reads the joints, knows nothing of
# them and says whatever it likes. From the front the drawer is seen to be shut.
FRONT = ("cameras=[observation.images.front]", "reward.use_state=false")


@dataclass(frozen=True)
class Task:
    """One world to learn in.

    Attributes:
        env: the world.
        steps: control steps of every run.
        demonstrations: episodes given to the learner.
        quality: of the demonstrations.
        videos: episodes of mixed quality, for the reward model alone.
        base: world that the videos show, where it is another one; a hop model learns from them and is then adapted
            from the demonstrations alone.
        repeat: control steps in a decision.
        discount: of a control step; 1 / (1 - g) is a few times what a success takes.
        evaluate_every: control steps between evaluations.
        reward: further words for train-reward.
        tries: of the clone, that the reward model sees beside the videos.
        noises: spreads of the noise on the tries' actions, in turn.
        most: progress that a demonstration reached at most; others are recorded and left out.
        unseen: entries of the environment's state that no learner looks at.
        parts: equal parts of the way that videos and tries are annotated with; 0 for the world's own stages.
        patience: decisions without progress after which the learner's own episodes are cut off.
        like: task whose videos and reward model this one shares, where it is another one.
    """

    env: str
    steps: int
    demonstrations: int = 12
    quality: str = "stops_partway"
    videos: int = 60
    base: str = ""
    repeat: int = 5
    discount: float = 0.99
    evaluate_every: int = 250
    reward: tuple[str, ...] = FRONT
    tries: int = 20
    noises: tuple[float, ...] = (0.1,)
    most: float = 1.0
    parts: int = 0
    patience: int = 8
    unseen: tuple[str, ...] = ()
    like: str = ""


# Tries of much noise show a reward model what goes wrong, and parts how far it got: of an unfinished stage, with few
# and long ones, it learns nothing.
SEEN: dict[str, Any] = {"noises": (0.1, 0.3, 0.5), "parts": 6, "evaluate_every": 500}
# Looking back by one decision, so that the next decision's progress is told from the same frames and one more.
QUARTER, FIFTH = "reward.gap_seconds=0.25", "reward.gap_seconds=0.2"

# Where the cube lies has no bearing on opening the drawer.
CUBE = tuple(f"cube_{name}" for name in ("x", "y", "z", "cos", "sin", "from_tip_x", "from_tip_y", "from_tip_z"))

TASKS: dict[str, Task] = {
    "open": Task("tidy_drawer/open", 9_000, tries=180, reward=(*FRONT, QUARTER), unseen=CUBE, **SEEN),
    # In those called early everybody gave up before half of the way: cloning them, with noise, hardly ever succeeds.
    "open_early": Task("tidy_drawer/open", 24_000, most=0.45, tries=180, reward=(*FRONT, QUARTER), unseen=CUBE, **SEEN),
    "carry": Task("tidy_drawer/carry", 9_000, tries=180, reward=(*FRONT, QUARTER), **SEEN),
    "carry_early": Task("tidy_drawer/carry", 24_000, tries=180, most=0.45, reward=(*FRONT, QUARTER), **SEEN),
    # The rate is 40/s: a decision of 8 steps is the 0.2 s that the reward model looks back.
    "door_open": Task(
        "metaworld/door-open-v3", 9_000, repeat=8, discount=0.995, tries=120, reward=(*FRONT, FIFTH), **SEEN
    ),
    "door_early": Task(
        "metaworld/door-open-v3", 24_000, repeat=8, discount=0.995, tries=120, most=0.5, reward=(*FRONT, FIFTH), **SEEN
    ),
    "drawer_open": Task("metaworld/drawer-open-v3", 8_000, repeat=8, discount=0.995, reward=(*FRONT, FIFTH), **SEEN),
    # Everybody gave up before pulling: the hand has come to the handle, which is half of the progress, at most.
    "drawer_early": Task(
        "metaworld/drawer-open-v3", 12_000, repeat=8, discount=0.995, most=0.55, parts=6, like="drawer_open"
    ),
    "from_carry": Task("tidy_drawer/from_carry", 20_000, discount=0.998),
    # Rollouts are counted, whole ones: 19 800 steps are 150 failures, and more tries where some succeed.
    "one_shot": Task(
        "tidy_drawer/open",
        19_800,
        1,
        "clean",
        60,
        "tidy_drawer/close",
        evaluate_every=500,
        reward=FRONT[:1],
        patience=0,
        unseen=CUBE,
    ),
    "one_shot_drawer": Task(
        "metaworld/drawer-open-v3", 9_000, 1, "clean", 60, "metaworld/door-open-v3", 10, 0.995, reward=FRONT[:1]
    ),
}
