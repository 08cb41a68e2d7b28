"""The tasks of rl.py: a recipe of train-rl, demonstrations for the learner, and videos for its reward model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from robo_core.cli.app import settings_of
from robo_core.cli.commands import find_commands
from robo_core.cli.composed import compose_command
from robo_policies.commands.train_rl import Config

# A learner tries poses that no operator takes; a model of the wrist camera, or of the joints, extrapolates freely
# there. The front camera shows that the drawer is shut.
FRONT = ("cameras=[observation.images.front]", "reward.use_state=false")


@dataclass(frozen=True)
class Task:
    """One environment to learn in.

    Attributes:
        recipe: of train-rl, in configs/experiment: environment, steps, and how to learn.
        demonstrations: episodes given to the learner.
        quality: of the demonstrations.
        videos: episodes of mixed quality, for the reward model alone.
        base: environment of the videos, where it is another one; a hop model learns from them and is then adapted
            from the demonstrations alone.
        reward: further words for train-reward.
        tries: rollouts of the clone, that the reward model is trained on beside the videos.
        noises: standard deviations of the noise on the rollouts' actions, in turn.
        max_progress: of a demonstration; others are recorded and left out.
        parts: equal parts of progress that annotate videos and rollouts; 0 for the environment's own stages.
        like: task whose videos and reward model this one shares, where it is another one.
    """

    recipe: str
    demonstrations: int = 12
    quality: str = "stops_partway"
    videos: int = 60
    base: str = ""
    reward: tuple[str, ...] = FRONT
    tries: int = 20
    noises: tuple[float, ...] = (0.1,)
    max_progress: float = 1.0
    parts: int = 0
    like: str = ""

    @cached_property
    def settings(self) -> Config:
        """What the recipe makes of train-rl's settings."""
        command = find_commands()["train-rl"]
        return cast(
            Config, settings_of(command, compose_command(command, [f"experiment={self.recipe}", "out=."]).config)
        )


# Rollouts with much noise show a reward model what goes wrong, and parts how far it got: of an unfinished stage, with
# few and long ones, it learns nothing.
ROLLOUTS: dict[str, Any] = {"noises": (0.1, 0.3, 0.5), "parts": 6}
# Looking back by one macro-action, so that the next one's progress is predicted from the same frames and one more.
QUARTER, FIFTH = "reward.gap_seconds=0.25", "reward.gap_seconds=0.2"

TASKS: dict[str, Task] = {
    "open": Task("rl_open", tries=180, reward=(*FRONT, QUARTER), **ROLLOUTS),
    # In those called early everybody gave up before half of the way: cloning them, with noise, hardly ever succeeds.
    "open_early": Task("rl_open_early", max_progress=0.45, tries=180, reward=(*FRONT, QUARTER), **ROLLOUTS),
    "carry": Task("rl_carry", tries=180, reward=(*FRONT, QUARTER), **ROLLOUTS),
    "carry_early": Task("rl_carry_early", tries=180, max_progress=0.45, reward=(*FRONT, QUARTER), **ROLLOUTS),
    # The rate is 40/s: a macro-action of 8 steps is the 0.2 s that the reward model looks back.
    "door_open": Task("rl_door_open", tries=120, reward=(*FRONT, FIFTH), **ROLLOUTS),
    "door_early": Task("rl_door_early", tries=120, max_progress=0.5, reward=(*FRONT, FIFTH), **ROLLOUTS),
    "drawer_open": Task("rl_drawer_open", reward=(*FRONT, FIFTH), **ROLLOUTS),
    # Everybody gave up before pulling: the hand has come to the handle, which is half of the progress, at most.
    "drawer_early": Task("rl_drawer_early", max_progress=0.55, parts=6, like="drawer_open"),
    "from_carry": Task("rl_from_carry"),
    # Rollouts are counted, whole ones: 19 800 steps are 150 failures, and more tries where some succeed.
    "one_shot": Task("rl_one_shot", 1, "clean", 60, "tidy_drawer/close", reward=FRONT[:1]),
    "one_shot_drawer": Task("rl_one_shot_drawer", 1, "clean", 60, "metaworld/door-open-v3", reward=FRONT[:1]),
}
