"""Write a robot contract to complete, from a URDF, MoveIt's joint_limits.yaml and LeRobot's calibration.

Joints, kinds and limits come from the files; where two give a limit, the narrower one counts. What no file can say
(accelerations, cameras, rates, deadlines) is written as TODO, and loading the contract lists what is left. Degrees in a
URDF and xacro are refused. Continuous joints, and joints that were left out (mimic, fixed), are reported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

import robo_hw
from robo_core.cli.following import say_next
from robo_core.console import say
from robo_core.errors import ConfigError
from robo_core.outputs import write_atomically
from robo_hw import contract
from robo_hw.errors import ContractError

GROUP = "robot"
OUT_IS_A_FILE = True


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm make-contract``."""

    urdf: str | None = None
    """The robot's URDF, expanded (not xacro); may be left out where lerobot is given."""
    limits: str | None = None
    """MoveIt's joint_limits.yaml."""
    lerobot: str | None = None
    """LeRobot's calibration file of the arm, as lerobot-calibrate writes it."""
    out: str = MISSING
    """File to write."""
    overwrite: bool = False
    """Replace the file where it is there."""


def run(config: Config) -> None:
    """Write the contract, and say what is left to complete."""
    out = Path(config.out)
    if out.exists() and not config.overwrite:
        raise ConfigError(f"{out} is there already; give another out, or overwrite=true")
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent}; make it, or give another out")
    if config.limits and not config.urdf:
        raise ConfigError("limits are of the joints of a URDF: give urdf=FILE, too")
    urdf = contract.read_urdf(Path(config.urdf)) if config.urdf else None
    limits = None
    if urdf is not None and config.limits:
        turning = [joint.name for joint in urdf.joints if joint.kind != "prismatic"]
        limits = contract.read_joint_limits(Path(config.limits), [joint.name for joint in urdf.joints], turning)
    calibration = contract.load_calibration(Path(config.lerobot)) if config.lerobot else None
    file = os.path.relpath(config.lerobot, out.parent) if config.lerobot else ""
    sources = ", ".join(Path(given).name for given in (config.urdf, config.limits, config.lerobot) if given)
    draft = contract.draft_contract(urdf, limits, calibration, file, sources)
    write_atomically(out, draft.text)
    for remark in draft.remarks:
        say(f"  {remark}")
    try:
        robo_hw.RobotContract.load(out)
    except ContractError as error:
        say(str(error))
        say(f"wrote {out}: complete what is listed above, and load it again (any command with contract={out} does)")
    else:
        say(f"wrote {out}")
    say_next("deploy-check", policy="POLICY", store="STORE.zarr", contract=config.out)
