"""Run a policy on an arm without ROS: LeRobot's robots, or the simulated arm, behind the same safety core.

robot=lerobot drives a robot of LeRobot's (robot.type=so101_follower robot.port=/dev/ttyACM0 robot.id=my_arm), in the
units of the contract's section lerobot; robot=simulated is tidy_drawer in MuJoCo, with contract=tidy_drawer.
The policy runs in this process (policy=DIR) or in robo-rm serve-policy (policy_address=unix:/path). Nothing moves until
the key a is pressed; space is the emergency stop; ? shows every key. With record=STORE each run becomes an episode with
its interventions and its outcome.

This is software and not safety-rated. Keep a switch that cuts the arm's power within reach.
"""

from __future__ import annotations

from collections.abc import Mapping

from robo_core.cli.following import say_next, say_then
from robo_policies import robots
from robo_policies.robots.settings import Config

GROUP = "robot"


def config_groups() -> dict[str, Mapping[str, type]]:
    """Each robot has settings of its own."""
    return {"robot": {"lerobot": robots.LeRobotSettings, "simulated": robots.SimulatedSettings}}


def run(config: Config) -> None:
    """Check everything, connect, and run until q, Ctrl-C or SIGTERM."""
    robots.run_policy(config)
    if config.record is not None:
        say_next("doctor", store=config.record)
    else:
        say_then("record=STORE.zarr keeps the next runs as episodes to learn from")
