"""Parameters, their files, and starting a node wrongly, with ROS at hand."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
import rig  # noqa: F401 - imports ROS's old parser quietly
import yaml
from rclpy.node import Node

CONFIG = Path(__file__).resolve().parents[4] / "hw" / "ros2" / "robo_rm_bridge" / "config"
NODES = {
    "policy": ("robo_rm_policy", "policy_settings"),
    "recorder": ("robo_rm_recorder", "recorder_node"),
    "monitor": ("robo_rm_monitor", "monitor_node"),
    "mujoco_arm": ("mujoco_arm", "mujoco_arm_node"),
}


@pytest.fixture
def ros():
    rclpy.init()
    yield
    rclpy.shutdown()


def settings_of(name: str):
    return importlib.import_module(f"robo_rm_bridge.{NODES[name][1]}").SETTINGS


@pytest.mark.parametrize("name", NODES)
def test_every_parameter_file_gives_every_parameter_a_value_that_is_accepted(ros, name, tmp_path):
    from robo_rm_bridge.settings import declare

    content = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())["/**"][NODES[name][0]]["ros__parameters"]
    assert set(content) == {setting.name for setting in settings_of(name)}
    node = Node(NODES[name][0], cli_args=["--ros-args", "--params-file", str(CONFIG / f"{name}.yaml")])
    values = vars(declare(node, settings_of(name)))
    assert values["contract"] == "tidy_drawer"
    for setting in settings_of(name):
        descriptor = node.describe_parameter(setting.name)
        assert descriptor.description
        if isinstance(setting.default, (int, float)) and not isinstance(setting.default, bool):
            assert descriptor.floating_point_range or descriptor.integer_range, f"{setting.name} has no range"
    node.destroy_node()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "vector_age:=99.0"], "parameter vector_age"),
        (["-p", "chunk_blending:=sometimes"], "choose one of: 'latest'"),
        (["-p", "task:=5"], "parameter task"),
        ([], "parameter contract is not set"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(ros, words, said):
    from robo_rm_bridge.settings import SettingError, declare

    given = ["--ros-args", *words] if words else []
    if words:
        given += ["-p", "contract:=so101", "-p", "policy_address:=unix:/tmp/x"]
    node = Node("robo_rm_policy", cli_args=given)
    with pytest.raises(SettingError, match=said):
        declare(node, settings_of("policy"))
    node.destroy_node()


@pytest.mark.parametrize(
    ("node", "parameters", "environ", "said"),
    [
        ("mujoco_arm_node", ["-p", "contract:=so101"], {}, "its joints are not the simulated arm's"),
        ("recorder_node", ["-p", "contract:=so101", "-p", "task:=t"], {}, "nothing to record into"),
        ("monitor_node", ["-p", "contract:=nowhere.yaml", "-p", "policy_address:=unix:/tmp/x"], {}, "no such file"),
        (
            "policy_node",
            [],
            {"RMW_IMPLEMENTATION": "rmw_of_nobody"},
            "no middleware (RMW_IMPLEMENTATION=rmw_of",
        ),
    ],
)
def test_a_node_that_cannot_start_says_why_in_one_line_and_exits_2(node, parameters, environ, said):
    words = [sys.executable, "-m", "robo_rm_bridge", node, "--ros-args", *parameters]
    done = subprocess.run(
        words,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{node}: ")]
    assert len(lines) == 1, done.stderr
    assert said in lines[0]
