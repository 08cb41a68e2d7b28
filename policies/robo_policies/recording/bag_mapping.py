"""What a robot contract says about a bag: which topic is which feature, and how old a message may be."""

from __future__ import annotations

from robo_datasets.importers.rosbag.messages import TopicMapping
from robo_hw.contract.robot_contract import RobotContract
from robo_hw.contract.topic_rules import absolute
from robo_hw.errors import ContractError


def contract_mappings(contract: RobotContract) -> list[TopicMapping]:
    """Cameras, joint states and commands of a contract as topic mappings, one feature each.

    Relative names are taken as they are without a namespace, which is how the recorder writes them.

    Observations are held, which is what the policy will see when it runs; a command belongs to the frame nearest to it.

    Raises:
        ContractError: the joints are spread over several topics.
    """
    mappings = [
        TopicMapping(absolute(camera.topic), f"observation.images.{camera.name}", "hold", camera.stop_after)
        for camera in contract.cameras
    ]
    if len(contract.joint_states) != 1:
        raise ContractError(
            f"the contract of {contract.robot} reads joint states from {len(contract.joint_states)} topics, and a "
            "bag's feature comes from one; record with the recorder node, or map the topics by hand"
        )
    states, names = absolute(contract.joint_states[0].name), contract.state_names
    mappings.append(TopicMapping(states, "observation.state", "hold", contract.deadlines.joint_states, names=names))
    command = absolute(contract.command.name)
    # A forward command is bare numbers in the contract's order; a trajectory names its joints.
    named = contract.joint_names if contract.command_interface == "joint_trajectory" else ()
    mappings.append(TopicMapping(command, "action", "nearest", contract.deadlines.actions, names=named))
    return mappings
