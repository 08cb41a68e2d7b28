"""MuJoCo worlds: each is a ``gymnasium.Env`` with true success, stage and progress in ``info``.

``tidy_drawer`` is our own, ``tidy_drawer/<part>`` one skill of it or the rest of it from some stage;
``metaworld/<task>`` are the 50 tasks of Meta-World with their experts; ``gym/<id>`` is anything that
gymnasium-robotics and gym-aloha register.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robo_core.errors import ConfigError, MissingPartError

if TYPE_CHECKING:
    from robo_policies.worlds.gym_world import GymWorld
    from robo_policies.worlds.metaworld import MetaWorld
    from robo_policies.worlds.tidy_drawer import TidyDrawer

WORLDS = ("tidy_drawer", "tidy_drawer/<part>", "metaworld/<task>", "gym/<id>")

__all__ = ["WORLDS", "make_env"]


def make_env(
    name: str,
    render: str = "fast",
    image_size: int = 128,
    cameras: Sequence[str] = (),
    max_steps: int | None = None,
    action_repeat: int | None = None,
) -> TidyDrawer | MetaWorld | GymWorld:
    """Build a world.

    Args:
        name: ``tidy_drawer``; one part of it, ``tidy_drawer/open`` (or reach, grasp, carry, close), or
            ``tidy_drawer/from_carry`` for a part and all after it; ``metaworld/drawer-open-v3`` (any of its 50
            tasks); or ``gym/FetchReach-v4`` (any id).
        render: render preset, ``fast`` (no shadows, multisampling or reflections) or ``default``.
        image_size: height and width of rendered images, pixels.
        cameras: which cameras' images each observation carries; none by default, because rendering costs far more
            than physics (``env.render_cameras()`` renders on demand).
        max_steps: decisions until the episode is truncated; None for the world's own limit.
        action_repeat: control steps that one action lasts, in the adapters; None for the world's own. tidy_drawer has
            its own rate.

    Raises:
        ConfigError: unknown world, preset or camera; bad size, limit or repeat.
        MissingPartError: MuJoCo, Gymnasium, the world's own package or (when images are asked for) a GL backend is
            missing.
    """
    family, _, rest = name.partition("/")
    if name != "tidy_drawer" and not (family in ("tidy_drawer", "metaworld", "gym") and rest):
        raise ConfigError(f"env={name!r} is no world; choose one of: {', '.join(WORLDS)}")
    try:
        import gymnasium  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        raise MissingPartError("Gymnasium is not installed: pip install 'robo-rm[sim]'") from error
    if family == "metaworld":
        from robo_policies.worlds.metaworld import MetaWorld

        return MetaWorld(rest, render, image_size, cameras, max_steps, action_repeat)
    if family == "gym":
        from robo_policies.worlds.gym_world import GymWorld

        return GymWorld(rest, render, image_size, cameras, max_steps, action_repeat)
    if action_repeat not in (None, 1):
        raise ConfigError(f"action_repeat={action_repeat}: tidy_drawer decides at its own rate; leave it out")
    if rest:
        from robo_policies.worlds.drawer_skill import DrawerSkill

        return DrawerSkill(rest, render, image_size, cameras, max_steps)
    from robo_policies.worlds.tidy_drawer import MAX_STEPS, TidyDrawer

    return TidyDrawer(render, image_size, cameras, MAX_STEPS if max_steps is None else max_steps)
