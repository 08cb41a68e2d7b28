"""The policy node behind its safety core, for a real arm.

ros2 launch robo_rm_bridge policy.launch.py params:=my_policy.yaml contract:=my.yaml, beside robo-rm serve-policy.

An argument that is given wins over the file of parameters, which wins over the defaults. Two arms:
ros2 launch ... namespace:=left and ros2 launch ... namespace:=right, with relative topic names in their contracts.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch_ros.actions import LifecycleNode

from robo_rm_bridge.launching import single_node

PARAMETERS = {
    "contract": "the robot contract: a YAML file or a packaged example",
    "policy_address": "where robo-rm serve-policy listens",
    "policy_certificates": "for tls://: this computer's folder of robo-rm make-certificates",
    "autostart": "true: configure at start, activate when a policy that fits is connected",
    "task": "the instruction given to the policy",
}


def generate_launch_description() -> LaunchDescription:
    """One lifecycle node; empty arguments leave a parameter to the file."""
    return single_node(LifecycleNode, "policy_node", "robo_rm_policy", PARAMETERS)
