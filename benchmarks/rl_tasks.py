"""The tasks of rl.py: an environment, demonstrations for the learner, and videos for its reward model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# A learner tries poses that no operator takes; a model of the wrist camera, or of the joints, extrapolates freely
# there. The front camera shows that the drawer is shut.
FRONT = ("cameras=[observation.images.front]", "reward.use_state=false")


@dataclass(frozen=True)
class Task:
    """One environment to learn in.

    Attributes:
        env: the environment.
        steps: control steps of every run.
        demonstrations: episodes given to the learner.
        quality: of the demonstrations.
        videos: episodes of mixed quality, for the reward model alone.
        base: environment of the videos, where it is another one; a hop model learns from them and is then adapted
            from the demonstrations alone.
        action_repeat: control steps in a macro-action.
        discount: of a control step; 1 / (1 - g) is a few times what a success takes.
        evaluate_every: control steps between evaluations.
        reward: further words for train-reward.
        tries: rollouts of the clone, that the reward model is trained on beside the videos.
        noises: standard deviations of the noise on the rollouts' actions, in turn.
        max_progress: of a demonstration; others are recorded and left out.
        ignored_states: entries of the environment's state hidden from every learner.
        parts: equal parts of progress that annotate videos and rollouts; 0 for the environment's own stages.
        patience: macro-actions without progress after which the learner's own episodes are truncated.
        like: task whose videos and reward model this one shares, where it is another one.
    """

    env: str
    steps: int
    demonstrations: int = 12
    quality: str = "stops_partway"
    videos: int = 60
    base: str = ""
    action_repeat: int = 5
    discount: float = 0.99
    evaluate_every: int = 250
    reward: tuple[str, ...] = FRONT
    tries: int = 20
    noises: tuple[float, ...] = (0.1,)
    max_progress: float = 1.0
    parts: int = 0
    patience: int = 8
    ignored_states: tuple[str, ...] = ()
    like: str = ""


# Rollouts with much noise show a reward model what goes wrong, and parts how far it got: of an unfinished stage, with
# few and long ones, it learns nothing.
ROLLOUTS: dict[str, Any] = {"noises": (0.1, 0.3, 0.5), "parts": 6, "evaluate_every": 500}
# Looking back by one macro-action, so that the next one's progress is predicted from the same frames and one more.
QUARTER, FIFTH = "reward.gap_seconds=0.25", "reward.gap_seconds=0.2"

# Where the cube lies has no bearing on opening the drawer.
CUBE = tuple(f"cube_{name}" for name in ("x", "y", "z", "cos", "sin", "from_tip_x", "from_tip_y", "from_tip_z"))

TASKS: dict[str, Task] = {
    "open": Task("tidy_drawer/open", 9_000, tries=180, reward=(*FRONT, QUARTER), ignored_states=CUBE, **ROLLOUTS),
    # In those called early everybody gave up before half of the way: cloning them, with noise, hardly ever succeeds.
    "open_early": Task(
        "tidy_drawer/open",
        24_000,
        max_progress=0.45,
        tries=180,
        reward=(*FRONT, QUARTER),
        ignored_states=CUBE,
        **ROLLOUTS,
    ),
    "carry": Task("tidy_drawer/carry", 9_000, tries=180, reward=(*FRONT, QUARTER), **ROLLOUTS),
    "carry_early": Task(
        "tidy_drawer/carry", 24_000, tries=180, max_progress=0.45, reward=(*FRONT, QUARTER), **ROLLOUTS
    ),
    # The rate is 40/s: a macro-action of 8 steps is the 0.2 s that the reward model looks back.
    "door_open": Task(
        "metaworld/door-open-v3", 9_000, action_repeat=8, discount=0.995, tries=120, reward=(*FRONT, FIFTH), **ROLLOUTS
    ),
    "door_early": Task(
        "metaworld/door-open-v3",
        24_000,
        action_repeat=8,
        discount=0.995,
        tries=120,
        max_progress=0.5,
        reward=(*FRONT, FIFTH),
        **ROLLOUTS,
    ),
    "drawer_open": Task(
        "metaworld/drawer-open-v3", 8_000, action_repeat=8, discount=0.995, reward=(*FRONT, FIFTH), **ROLLOUTS
    ),
    # Everybody gave up before pulling: the hand has come to the handle, which is half of the progress, at most.
    "drawer_early": Task(
        "metaworld/drawer-open-v3",
        12_000,
        action_repeat=8,
        discount=0.995,
        max_progress=0.55,
        parts=6,
        like="drawer_open",
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
        ignored_states=CUBE,
    ),
    "one_shot_drawer": Task(
        "metaworld/drawer-open-v3", 9_000, 1, "clean", 60, "metaworld/door-open-v3", 10, 0.995, reward=FRONT[:1]
    ),
}
