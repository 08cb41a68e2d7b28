"""Steering by a reward function in a file of the user's, as settings of a command."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo_core.errors import ConfigError

if TYPE_CHECKING:
    from robo_policies.cloning.steering import Steering


@dataclass(frozen=True)
class SteeringSettings:
    """What steers a diffusion policy while it acts."""

    reward: str | None = None
    """FILE.py:FUNCTION of actions (B, K, H, A) and observation that returns (B, K), which torch can differentiate; null
    for no steering. The file is executed."""
    scale: float = 0.1
    """Step size along the gradient of the reward, in normalised actions."""
    guided_steps: int | None = None
    """Guide the last so many denoising steps only; null: all."""
    largest_move: float = 0.2
    """Maximum change of any number of a chunk per step."""
    repeats: int = 1
    """Gradient steps per denoising step."""
    particles: int = 1
    """Chunks denoised in parallel, of which the best is executed."""
    temperature: float = 1.0
    """How readily a worse particle is replaced, in units of the reward."""

    def load(self) -> Steering | None:
        """The steering, with its function; None where there is no reward.

        Raises:
            ConfigError: a number is out of range, the file is missing or fails, or it has no such function.
        """
        if self.reward is None:
            return None
        from robo_policies.cloning.steering import Steering

        return Steering(
            _function(self.reward),
            self.scale,
            self.guided_steps,
            self.largest_move,
            self.repeats,
            self.particles,
            self.temperature,
        )


def _function(where: str) -> Any:
    name, colon, function = where.rpartition(":")
    if not colon or not function.isidentifier():
        raise ConfigError(f"steering.reward={where}: give FILE.py:FUNCTION, such as stay_low.py:stay_low")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"steering.reward={where}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"steering_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"steering.reward={where}: {path} is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # Whatever a user's file raises is the user's to mend.
        raise ConfigError(f"steering.reward={where}: {path} fails with {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigError(f"steering.reward={where}: {path} has no function {function!r}")
    return found
