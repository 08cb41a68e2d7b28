"""Vectors of environments and run contexts as the tests of reinforcement learning need them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from line_env import LineEnv

from robo_policies.rl.envs.macro_action import ActionMap, Environment, action_map
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv, make_vector_env
from robo_policies.rl.runners.runner import RunContext
from robo_policies.rl.settings import LearningSettings
from robo_policies.rl.types import BehaviorPrior
from robo_rm.shaping.modes import ShapingSettings
from robo_rm.shaping.potential import Potential, TrueProgress


def vector_env(
    make: Callable[[], Environment],
    count: int,
    actions: ActionMap,
    seed: int,
    potential: Potential | None = None,
    discount: float = 0.98,
    prior: BehaviorPrior | None = None,
    patience: int = 0,
    processes: int = 0,
) -> MacroActionVectorEnv:
    """So many environments; the simulator's progress is the potential unless one is given."""
    potential = TrueProgress() if potential is None else potential
    envs = make_vector_env(make, count, actions, potential, processes)
    return MacroActionVectorEnv(envs, actions, potential, discount, seed, prior, patience)


def line_envs(
    seed: int,
    loop: LearningSettings,
    make: Callable[[], Environment] = LineEnv,
    prior: BehaviorPrior | None = None,
    potential: Potential | None = None,
) -> MacroActionVectorEnv:
    """``loop.num_envs`` points on lines."""
    actions = action_map(make().action_space, loop.action_repeat)
    return vector_env(make, loop.num_envs, actions, seed, potential, loop.discount, prior, processes=loop.processes)


def line_context(
    folder: Path,
    loop: LearningSettings,
    shaping: str = "pbrs",
    fingerprint: str = "a",
    seed: int = 0,
    make: Callable[[], Environment] = LineEnv,
    prior: BehaviorPrior | None = None,
    potential: Potential | None = None,
) -> RunContext:
    """A run on such lines; ``make`` and ``potential`` are those of the training environments alone."""
    return RunContext(
        line_envs(seed, loop, make, prior, potential),
        lambda seed: line_envs(seed, loop, prior=prior),
        ShapingSettings(shaping),
        loop,
        seed,
        folder,
        fingerprint,
    )
