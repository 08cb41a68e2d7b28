"""Which environments there are: how each is made, and who demonstrates in it.

``tidy_drawer`` is our own, ``tidy_drawer/<part>`` one skill of it or the rest of it from some stage;
``metaworld/<task>`` are the 50 tasks of Meta-World with their experts; ``gym/<id>`` is anything that
gymnasium-robotics and gym-aloha register.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from robo_core.errors import ConfigError, MissingPartError

if TYPE_CHECKING:
    import numpy as np

    from robo_policies.envs.base import EnvSettings, MujocoEnv
    from robo_policies.envs.demonstrations import Actions

ENVIRONMENTS = {
    "tidy_drawer": ("tidy_drawer.env:TidyDrawerEnv", "tidy_drawer.demonstrations:demonstrate"),
    "tidy_drawer/<part>": ("tidy_drawer.skills:TidyDrawerSkillEnv", "tidy_drawer.skill_demonstrations:demonstrate"),
    "metaworld/<task>": ("metaworld.env:MetaWorldEnv", "metaworld.operator:demonstrate"),
    "gym/<id>": ("gymnasium_env:GymnasiumEnv", ""),
}
"""Name to the class below `robo_policies.envs`, which is given what stands for ``<...>``, and to the function that
demonstrates in it. Imported when asked for: each needs its own package."""


def make_env(
    name: str,
    render: str = "fast",
    image_size: int = 128,
    cameras: Sequence[str] = (),
    max_steps: int | None = None,
    action_repeat: int | None = None,
) -> MujocoEnv:
    """Make an environment.

    Args:
        name: ``tidy_drawer``; one part of it, ``tidy_drawer/open`` (or reach, grasp, carry, close), or
            ``tidy_drawer/from_carry`` for a part and all after it; ``metaworld/drawer-open-v3`` (any of its 50
            tasks); or ``gym/FetchReach-v4`` (any id).
        render: render preset, ``fast`` (no shadows, multisampling or reflections) or ``default``.
        image_size: height and width of rendered images, pixels.
        cameras: which cameras' images each observation carries; none by default, because rendering costs far more
            than physics (``env.render_cameras()`` renders on demand).
        max_steps: steps until the episode is truncated; None for the environment's own limit.
        action_repeat: control steps that one action lasts; None for the environment's own. tidy_drawer's is fixed.

    Raises:
        ConfigError: unknown environment, preset or camera; bad size, limit or repeat.
        MissingPartError: MuJoCo, Gymnasium, the environment's own package or (when images are asked for) a GL backend
            is missing.
    """
    made, _, rest = _entry(name)
    try:
        import gymnasium  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        raise MissingPartError("Gymnasium is not installed: pip install 'robo-rm[sim]'") from error
    settings: EnvSettings = {
        "render": render,
        "image_size": image_size,
        "cameras": cameras,
        "max_steps": max_steps,
        "action_repeat": action_repeat,
    }
    kind = cast("Callable[..., MujocoEnv]", _load(made))
    return kind(rest, **settings) if rest else kind(**settings)


def demonstrate(env: MujocoEnv, quality: str, random: np.random.Generator) -> Actions:
    """Actions of a scripted operator from the present state; step the environment between them.

    Raises:
        ConfigError: ``quality`` is unknown, or the environment has no scripted operator; says what to do instead.
        MissingPartError: what the operator needs is not installed.
    """
    _, operator, _ = _entry(env.name)
    if not operator:
        raise ConfigError(
            f"{env.name} has no scripted operator to record; use env=tidy_drawer or env=metaworld/<task>, or import "
            "demonstrations with `robo-rm import`"
        )
    script = cast("Callable[[MujocoEnv, str, np.random.Generator], Actions]", _load(operator))
    return script(env, quality, random)


def _entry(name: str) -> tuple[str, str, str]:
    """Class, operator and the rest of the name."""
    family, slash, rest = name.partition("/")
    for known, (made, operator) in ENVIRONMENTS.items():
        if known.partition("/")[:2] == (family, slash) and bool(rest) == bool(slash):
            return made, operator, rest
    raise ConfigError(f"env={name!r} is not an environment; choose one of: {', '.join(ENVIRONMENTS)}")


def _load(path: str) -> object:
    module, _, attribute = path.partition(":")
    found: object = getattr(importlib.import_module(f"robo_policies.envs.{module}"), attribute)
    return found
