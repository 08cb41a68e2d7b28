"""Recording probe episodes: one plan for each probe, episodes as of any other recording."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robo_core.errors import ConfigError
from robo_policies.envs.tidy_drawer.probes import PROBES, TidyDrawerProbeEnv, demonstrate
from robo_policies.recording.recorder import LONGEST, RecordingPlan

if TYPE_CHECKING:
    import numpy as np

    from robo_policies.envs.base import MujocoEnv
    from robo_policies.envs.demonstrations import Actions

ENVIRONMENT = "tidy_drawer"
_NAMESPACE = uuid.UUID("0e2bb1a5-7a44-4d1a-8a0e-4b7d6f6f3f0d")


@dataclass(frozen=True)
class ProbePlan(RecordingPlan):
    """A plan whose quality is the name of a probe; `robo_rm.evaluation.probes.probe_recorded` reads it as such.

    Raises:
        ConfigError: an unknown probe, or a seed below 0.
    """

    environment_state: bool = False
    """The simulator has nothing true to say of a cube that is not in the image."""

    def __post_init__(self) -> None:
        if self.quality not in PROBES:
            raise ConfigError(f"probes={self.quality}: there is no such probe; choose among: {', '.join(PROBES)}")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} must be 0 or more")

    def make_env(self) -> TidyDrawerProbeEnv:
        """The probe's environment."""
        return TidyDrawerProbeEnv(self.quality, render=self.render, image_size=self.image_size, max_steps=LONGEST)

    def demonstrate(self, env: MujocoEnv, index: int, random: np.random.Generator) -> Actions:
        """Actions of an episode from the environment's present state."""
        assert isinstance(env, TidyDrawerProbeEnv)
        return demonstrate(env, random)

    def quality_of(self, index: int) -> str:
        """The probe."""
        return self.quality

    def uuid_of(self, index: int) -> str:
        """Name of an episode in the store; the same for the same probe, seed and index."""
        identity: list[object] = [self.env, self.quality, self.seed, index]
        return str(uuid.uuid5(_NAMESPACE, json.dumps(identity)))


def probe_plans(
    env: str, probes: Sequence[str], seed: int, image_size: int, cameras: Sequence[str], render: str
) -> list[ProbePlan]:
    """A plan for each probe.

    Raises:
        ConfigError: the environment has no probes, or not these.
    """
    if env != ENVIRONMENT:
        raise ConfigError(f"env={env}: probes can be recorded in {ENVIRONMENT} only, whose scene is ours to change")
    if not probes or len(set(probes)) != len(probes):
        raise ConfigError(f"probes={list(probes)}: name each probe once, of: {', '.join(PROBES)}")
    return [ProbePlan(env, probe, seed, image_size, tuple(cameras), render) for probe in probes]
