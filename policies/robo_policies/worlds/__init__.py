"""MuJoCo worlds: each is a ``gymnasium.Env`` with a scripted expert, true stage and progress in ``info``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robo_datasets.errors import ConfigError, MissingPartError

if TYPE_CHECKING:
    from robo_policies.worlds.tidy_drawer import TidyDrawer

WORLDS = ("tidy_drawer",)

__all__ = ["WORLDS", "make_env"]


def make_env(
    name: str,
    render: str = "fast",
    image_size: int = 128,
    cameras: Sequence[str] = (),
    max_steps: int | None = None,
) -> TidyDrawer:
    """Build a world.

    Args:
        name: one of ``WORLDS``.
        render: render preset, ``fast`` (no shadows, multisampling or reflections) or ``default``.
        image_size: height and width of rendered images, pixels.
        cameras: which cameras' images each observation carries; none by default, because rendering costs far more
            than physics (``env.render_cameras()`` renders on demand).
        max_steps: control steps until the episode is truncated; None for the world's own limit.

    Raises:
        ConfigError: unknown world, preset or camera; bad size or limit.
        MissingPartError: MuJoCo, Gymnasium or (when images are asked for) a GL backend is missing.
    """
    if name not in WORLDS:
        raise ConfigError(f"env={name!r} is no world; choose one of: {', '.join(WORLDS)}")
    try:
        import gymnasium  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        raise MissingPartError("Gymnasium is not installed: pip install 'robo-rm[sim]'") from error
    from robo_policies.worlds.tidy_drawer import MAX_STEPS, TidyDrawer

    return TidyDrawer(render, image_size, cameras, MAX_STEPS if max_steps is None else max_steps)
