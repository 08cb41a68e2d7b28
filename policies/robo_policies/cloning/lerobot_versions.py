"""What differs between the versions of LeRobot that are supported. Nothing else asks which one is installed.

========  =================  =========================================================================================
LeRobot   Python             what differs for us
========  =================  =========================================================================================
0.4.4     3.11               the padding of an action chunk counts in the loss's divisor; SARM and RA-BC among the
                             policies and utilities
0.6       3.12, 3.13         the loss is divided by the valid entries; SARM and RA-BC under ``lerobot.rewards``; further
                             settings of policies; other defaults of Diffusion
========  =================  =========================================================================================

The rules that make the rest independent of the version: a configuration names every setting that makes the network
(`robo_policies.cloning.act.act_config`), and a loss is always divided by what lies inside the episode
(`robo_policies.cloning.learner.within_episode`).
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo_core.errors import ModelError

if TYPE_CHECKING:
    from lerobot.configs.policies import PreTrainedConfig

PLACES: Mapping[str, tuple[str, ...]] = {
    "dataset_to_policy_features": ("lerobot.utils.feature_utils", "lerobot.datasets.utils"),
    "RABCWeights": ("lerobot.rewards.sarm.rabc", "lerobot.utils.rabc"),
    "SARMConfig": ("lerobot.rewards.sarm.configuration_sarm", "lerobot.policies.sarm.configuration_sarm"),
    "SARMRewardModel": ("lerobot.rewards.sarm.modeling_sarm", "lerobot.policies.sarm.modeling_sarm"),
    "sarm_utils": ("lerobot.rewards.sarm.sarm_utils", "lerobot.policies.sarm.sarm_utils"),
    "MotorsBus": ("lerobot.motors.motors_bus",),
}
"""Where each name stands, newest version first; a name of a module is the module itself."""

RENAMED: Mapping[str, tuple[str, ...]] = {"MotorsBus": ("MotorsBusBase", "MotorsBus")}
"""What a name is called in its module, newest version first."""

LATER_SETTINGS: Mapping[str, Any] = {
    "pretrained_revision": None,
    "gradient_checkpointing": False,
    "use_relative_actions": False,
    "relative_exclude_joints": ["gripper"],
    "action_feature_names": None,
}
"""Settings of policies that came after 0.4.4, with the value at which a policy is what it is without them."""

INTERNALS: Mapping[str, tuple[str, ...]] = {
    "act": ("model",),
    "diffusion": (
        "diffusion._prepare_global_conditioning",
        "diffusion.conditional_sample",
        "diffusion.noise_scheduler",
        "diffusion.unet",
    ),
}
"""Names inside LeRobot's policies that are used here and are no public interface of LeRobot's."""


def lerobot_version() -> str:
    """The installed version of LeRobot, or "none"."""
    try:
        return metadata.version("lerobot")
    except metadata.PackageNotFoundError:
        return "none"


def from_lerobot(name: str) -> Any:
    """The object or module of LeRobot's that ``name`` of `PLACES` stands for, wherever this version keeps it.

    Raises:
        ImportError: LeRobot is not installed, or has it nowhere that is known.
    """
    for place in PLACES[name]:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if not place.startswith(str(error.name)):
                raise  # a library that LeRobot needs is missing
            continue
        if place.endswith(f".{name}"):
            return module
        for called in RENAMED.get(name, (name,)):
            if hasattr(module, called):
                return getattr(module, called)
    raise ImportError(f"LeRobot {lerobot_version()} has no {name} in {' or '.join(PLACES[name])}")


def read_configuration(folder: Path, kind: str, written_by: str = "") -> PreTrainedConfig:
    """The configuration of the policy in ``folder``, whichever version of LeRobot wrote it.

    Settings that the installed version does not know are left out where they have the value at which they change
    nothing.

    Args:
        folder: with LeRobot's ``config.json``.
        kind: LeRobot's name of the policy, such as "act".
        written_by: the version that wrote it, where that is known.

    Raises:
        ModelError: a setting that this version does not know is in use; names it and the versions.
        ValueError, TypeError, DraccusException: the file does not hold a configuration.
    """
    import draccus
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class

    get_policy_class(kind)  # registers the kind with LeRobot's configurations
    known = {field.name for field in dataclasses.fields(PreTrainedConfig.get_choice_class(kind))} | {"type"}
    values = {key: value for key, value in LATER_SETTINGS.items() if key in known}
    values |= json.loads((folder / "config.json").read_text())
    for key in sorted(values.keys() - known):
        if key not in LATER_SETTINGS or values[key] != LATER_SETTINGS[key]:
            raise ModelError(
                f"{folder} was written by {f'LeRobot {written_by}' if written_by else 'another version of LeRobot'}: "
                f"its setting {key}={values[key]!r} is not known to LeRobot {lerobot_version()}, which is installed "
                "here; load it with the version that wrote it (0.6 needs Python 3.12), or train it again"
            )
        del values[key]
    config: PreTrainedConfig = draccus.decode(PreTrainedConfig, values)
    return config


def check_internals(policy: Any, kind: str) -> None:
    """Check that ``policy`` has every name of `INTERNALS`, before anything is trained or loaded.

    Raises:
        ModelError: the installed version of LeRobot has renamed one; names it and the version.
    """
    for name in INTERNALS.get(kind, ()):
        inside = policy
        for part in name.split("."):
            inside = getattr(inside, part, None)
        if inside is None:
            raise ModelError(
                f"LeRobot {lerobot_version()} has no {name} in its {kind} policy, which robo-rm uses; install a "
                "version that it supports: docs/compatibility.md lists them"
            )
