"""Which learner trains which policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from robo_core.errors import MissingPartError
from robo_policies.cloning.act import ActLearner
from robo_policies.cloning.diffusion import DiffusionLearner
from robo_policies.cloning.images import Size
from robo_policies.cloning.learner import Learner
from robo_policies.cloning.settings import ActSettings, DiffusionSettings, PolicySettings

LEARNERS: dict[type[PolicySettings], Callable[[Any, Mapping[str, int], Mapping[str, Size], str], Learner]] = {
    ActSettings: ActLearner,
    DiffusionSettings: DiffusionLearner,
}


def make_learner(
    settings: PolicySettings, dims: Mapping[str, int], cameras: Mapping[str, Size], device: str = "cpu"
) -> Learner:
    """The learner that ``settings`` ask for.

    Args:
        settings: which policy, and its shape.
        dims: key -> D for the observation keys and the action.
        cameras: key -> (height, width) of the pictures.
        device: "cpu" or "cuda".

    Raises:
        MissingPartError: LeRobot is not installed.
    """
    try:
        import lerobot  # noqa: F401
    except ImportError as error:
        raise MissingPartError(
            f"LeRobot is needed for this policy ({error}); pip install 'robo-rm[lerobot]'"
        ) from error
    for kind, learner in LEARNERS.items():
        if isinstance(settings, kind):
            return learner(settings, dims, cameras, device)
    raise NotImplementedError(f"{type(settings).__name__} has no learner")
