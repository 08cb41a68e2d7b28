"""What the Cartesian actions of a policy mean."""

from __future__ import annotations

from dataclasses import dataclass

from robo_core.errors import ConfigError

ROTATIONS = {"rotvec": 3, "euler_xyz": 3, "quaternion_wxyz": 4, "quaternion_xyzw": 4, "rotation_6d": 6}
REFERENCES = ("absolute", "relative", "delta")


@dataclass(frozen=True)
class CartesianSettings:
    """What a policy's Cartesian actions mean; a checkpoint does not say."""

    model: str | None = None
    """URDF or MJCF of the arm; null: the policy's actions are joint positions."""
    frame: str = ""
    """The link, body or site whose pose the actions give, such as gripper_frame_link."""
    rotation: str = "rotvec"
    """rotvec (LeRobot), euler_xyz (DROID: fixed axes), quaternion_wxyz, quaternion_xyzw or rotation_6d (UMI)."""
    state: str = "joints"
    """What the policy reads as observation.state: joints, or pose: the hand's, in the form of the actions."""
    reference: str = "absolute"
    """absolute: in the arm's base; relative: in the hand's frame when the observation was made (UMI); delta: each from
    the one before, in the base (DROID's velocity, scaled to one action)."""
    gripper_closed: float = 0.0
    """The last value of an action where the gripper is closed; the contract says where that is."""
    gripper_open: float = 100.0
    """And where it is open: 100 with LeRobot, 0 with DROID (then closed is 1), the width in m with UMI."""
    position_tolerance: float = 0.003
    """Largest position error of the hand, m."""
    rotation_tolerance: float = 0.03
    """Largest orientation error of the hand, rad; wide, because arms of five joints cannot turn freely."""


def check_settings(settings: CartesianSettings) -> None:
    """Check everything that needs no model.

    Raises:
        ConfigError: names the setting.
    """
    if settings.rotation not in ROTATIONS:
        raise ConfigError(f"cartesian.rotation={settings.rotation} is not one of: {', '.join(ROTATIONS)}")
    if settings.reference not in REFERENCES:
        raise ConfigError(f"cartesian.reference={settings.reference} is not one of: {', '.join(REFERENCES)}")
    if settings.state not in ("joints", "pose"):
        raise ConfigError(f"cartesian.state={settings.state} is neither joints nor pose")
    if not settings.frame:
        raise ConfigError("cartesian.frame is missing; give the link or site whose pose the actions are")
    if settings.gripper_closed == settings.gripper_open:
        raise ConfigError(f"cartesian.gripper_closed and gripper_open are both {settings.gripper_open:g}")
    if not (settings.position_tolerance > 0 and settings.rotation_tolerance > 0):
        raise ConfigError("cartesian.position_tolerance and rotation_tolerance must be above 0")
