"""The robot contract of a simulated arm: recorded with its demonstrations, so that a robot can be compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robo_core.errors import ConfigError
from robo_hw import RobotContract, example_contracts
from robo_hw.errors import ContractError
from robo_policies.envs.tidy_drawer.env import STATE_NAMES

if TYPE_CHECKING:
    from robo_policies.recording.recorder import RecordingPlan

AUTO = "auto"


def recorded_contract(wanted: str | None, plan: RecordingPlan, fps: float) -> RobotContract | None:
    """The contract to record a plan's episodes under, or None for none.

    ``wanted``: a file or the name of a packaged contract, which has to fit; ``auto``: the packaged one of the
    environment's name where joints, rate and images are the same; None: none.

    Raises:
        ConfigError: the contract cannot be read, or does not fit what is recorded; names the first difference.
    """
    if wanted is None or (wanted == AUTO and plan.env not in example_contracts()):
        return None
    try:
        contract = RobotContract.load(plan.env if wanted == AUTO else wanted)
    except ContractError as error:
        raise ConfigError(str(error)) from error
    problem = _misfit(contract, plan, fps)
    if problem is None:
        return contract
    if wanted == AUTO:
        return None
    raise ConfigError(f"contract={wanted} does not fit what is recorded: {problem}")


def _misfit(contract: RobotContract, plan: RecordingPlan, fps: float) -> str | None:
    if contract.joint_names != STATE_NAMES:
        return f"its joints are {', '.join(contract.joint_names)}, the arm's {', '.join(STATE_NAMES)}"
    if contract.rates.actions != fps:
        return f"rates.actions is {contract.rates.actions:g} Hz, the environment runs at {fps:g}"
    if {camera.name for camera in contract.cameras} != set(plan.cameras):
        named = ", ".join(camera.name for camera in contract.cameras) or "none"
        return f"its cameras are {named}, recorded are {', '.join(plan.cameras) or 'none'}"
    for camera in contract.cameras:
        if (camera.height, camera.width) != (plan.image_size, plan.image_size):
            return (
                f"camera {camera.name} is {camera.height}x{camera.width} there, "
                f"{plan.image_size}x{plan.image_size} is recorded"
            )
    return None
