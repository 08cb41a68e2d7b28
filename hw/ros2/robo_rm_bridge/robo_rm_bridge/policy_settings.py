"""Parameters of the policy node."""

from __future__ import annotations

from robo_hw.safety.schedule import MODES
from robo_rm_bridge.policy_access import ACCESS
from robo_rm_bridge.settings import Setting

REMOVED = {
    "estop_topic": "name emergency stops in the contract, topics.estop",
    "schedule": "it is chunk_blending now",
    "replan_every": "it is execution_horizon now",
    "lead": "it is time_from_start now",
}
"""Parameters that there were: a stop that somebody relies on must not be lost in silence."""
SETTINGS = (
    Setting("contract", "", "the robot contract: a YAML file, or the name of a packaged example", required=True),
    Setting(
        "policy_address",
        "",
        "where robo-rm serve-policy listens: unix:NAME, unix:/path, tcp://127.0.0.1:PORT or tls://HOST:PORT",
        required=True,
    ),
    *ACCESS,
    Setting("task", "", "the instruction given to the policy"),
    Setting("autostart", False, "configure at start, and activate as soon as a policy that fits is connected"),
    Setting("chunk_blending", "real_time", "how chunks are merged into the motion", choices=tuple(MODES)),
    Setting("ensemble_decay", 0.01, "m of the temporal ensemble's weights exp(-m i)", 0.0, 10.0),
    Setting(
        "execution_horizon", 0, "actions between two observations given to the policy; 0: as the policy says", 0, 256
    ),
    Setting(
        "time_from_start",
        0.0,
        "seconds from receipt in which the controller shall reach a command; 0: one period",
        0.0,
        0.5,
    ),
    Setting("connect_timeout", 5.0, "seconds that activation waits for the policy server", 0.0, 60.0),
    Setting("vectors", [""], "further inputs of the policy, each observation.NAME=/topic (sensor_msgs/JointState)"),
    Setting("vector_age", 0.2, "seconds that a further input may be old", 0.01, 5.0),
    Setting("publish_commanded", True, "publish every command as sensor_msgs/JointState on ~/commanded"),
    Setting("diagnostics_rate", 1.0, "diagnostic messages per second", 0.1, 50.0),
)
