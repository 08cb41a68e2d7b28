"""What a robot contract says about a bag: which topic is which feature, and how old a message may be."""

from __future__ import annotations

from robo_datasets.importers.ros_messages import TopicMapping
from robo_hw.contract import RobotContract


def contract_mappings(contract: RobotContract) -> list[TopicMapping]:
    """Cameras, joint states and commands of a contract as topic mappings, one feature each.

    Observations are held, which is what the policy will see when it runs; a command belongs to the frame nearest to it.
    """
    mappings = [
        TopicMapping(camera.topic, f"observation.images.{camera.name}", "hold", camera.stop_after)
        for camera in contract.cameras
    ]
    names = contract.joint_names
    states = contract.joint_states.name
    mappings.append(TopicMapping(states, "observation.state", "hold", contract.deadlines.joint_states, names=names))
    # A forward command is bare numbers in the contract's order; a trajectory names its joints.
    named = names if contract.command_interface == "joint_trajectory" else ()
    mappings.append(TopicMapping(contract.command.name, "action", "nearest", contract.deadlines.actions, names=named))
    return mappings
