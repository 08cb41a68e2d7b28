"""The package builds with colcon, and takes robo_hw and robo_core along."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ros_environment import RosUnavailableError, colcon

from robo_rm_bridge import entry_points

ROOT = Path(__file__).resolve().parents[3]
# Everything but these is refused, as on a robot's computer.
ALONE = """
import sys
allowed = {"numpy", "yaml", "_yaml", "msgpack", "robo_core", "robo_hw", "robo_rm_bridge"} | set(sys.stdlib_module_names)
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{name} is not on a robot", name=name)
sys.meta_path.insert(0, Guard())
sys.path[:] = [SITE] + [entry for entry in sys.path if "robo" not in entry.rpartition("/")[2]]
import robo_hw, robo_rm_bridge
assert robo_hw.__file__.startswith(SITE), robo_hw.__file__
assert robo_rm_bridge.__file__.startswith(SITE)
from robo_hw import RobotContract, SafetyCore, SteadyClock, example_contracts
from robo_hw.transport import PolicyClient
for name in example_contracts():
    core = SafetyCore(RobotContract.load(name), SteadyClock())
    PolicyClient(core.contract, "unix:nobody")
from robo_rm_bridge import controller, entry_points, images, launching, middleware, recording, wire
print(sorted(example_contracts()))
raise SystemExit(entry_points.run("policy_node"))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    try:
        command = colcon()
    except RosUnavailableError as error:
        pytest.skip(f"no colcon: {error}")
    workspace = tmp_path_factory.mktemp("workspace")
    left_out = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    for folder in ("core", "hw"):
        shutil.copytree(ROOT / folder, workspace / "src" / folder, ignore=left_out)
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "AMENT_PREFIX_PATH")}
    done = subprocess.run(
        [*command, "build", "--base-paths", "src/hw/ros2"],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace / "install" / "robo_rm_bridge"


def test_colcon_installs_nodes_launch_files_parameters_and_the_marker(installed):
    assert {path.name for path in (installed / "lib" / "robo_rm_bridge").iterdir()} == {
        "policy_node",
        "recorder_node",
        "monitor_node",
        "mujoco_arm_node",
    }
    share = installed / "share"
    assert (share / "ament_index/resource_index/packages/robo_rm_bridge").is_file()
    assert (share / "robo_rm_bridge/package.xml").is_file()
    source = ROOT / "hw" / "ros2" / "robo_rm_bridge"
    for folder, pattern in (("launch", "*.launch.py"), ("config", "*.yaml")):
        names = {path.name for path in (source / folder).glob(pattern)}
        assert names
        assert {path.name for path in (share / "robo_rm_bridge" / folder).glob(pattern)} == names


def test_every_command_of_the_package_starts_a_node():
    text = (ROOT / "hw/ros2/robo_rm_bridge/setup.py").read_text()
    for node in entry_points.NODES:
        assert f'"{node}"' in text
        assert (ROOT / f"hw/ros2/robo_rm_bridge/robo_rm_bridge/{node}.py").is_file()
    assert callable(entry_points.main)


def test_what_is_installed_runs_with_numpy_yaml_and_msgpack_alone(installed):
    site = next(installed.glob("lib/python3*/site-packages"))
    words = [sys.executable, "-c", f"SITE = {str(site)!r}\n{ALONE}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=installed)
    assert "so101" in done.stdout, done.stderr
    assert done.returncode == 2
    assert "rclpy" in done.stderr


def test_a_copy_without_robo_hw_says_what_to_do(tmp_path):
    left_out = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "hw/ros2/robo_rm_bridge", tmp_path / "a/b/robo_rm_bridge", ignore=left_out)
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=tmp_path / "a/b/robo_rm_bridge",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "clone of the whole repository" in done.stderr
