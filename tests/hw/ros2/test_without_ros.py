"""What the bridge's modules do where there is no ROS: explain its absence, follow commands, keep what was seen."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robo_hw import HardwareError, RobotContract
from robo_hw.observation.observation_buffer import ObservationBuffer, parse_vectors, unmet_needs
from robo_hw.safety.timing import LoopTiming, Quantiles
from robo_rm_bridge.arm_faults import FAULTS, FaultPlayer
from robo_rm_bridge.controller import CommandFollower
from robo_rm_bridge.middleware import (
    MESSAGES,
    absent_middleware,
    explain_absence,
    explain_middleware,
    missing_messages,
)

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "hw" / "ros2" / "robo_rm_bridge"
DRAWER = RobotContract.load("tidy_drawer")
NEEDS = {"observation.state": (7,), "observation.images.front": (128, 128, 3), "observation.environment_state": (2,)}
VECTORS = parse_vectors(["observation.environment_state=/environment_state"])


# Why ROS cannot be had


def installed(root: Path, distro: str, python: str) -> dict[str, str]:
    """A ROS distribution on disk; returns what sourcing it sets."""
    prefix = root / distro
    site = prefix / "lib" / f"python{python}" / "site-packages"
    (site / "rclpy").mkdir(parents=True)
    (site / "rclpy" / "__init__.py").touch()
    (prefix / "setup.bash").touch()
    return {"ROS_DISTRO": distro, "AMENT_PREFIX_PATH": str(prefix), "PYTHONPATH": str(site)}


def test_rclpy_that_is_nowhere_is_not_installed(tmp_path):
    assert "not installed" in explain_absence({}, [], (3, 12), tmp_path)


def test_a_distribution_that_is_not_sourced_is_named_with_its_setup_file(tmp_path):
    installed(tmp_path, "jazzy", "3.12")
    text = explain_absence({}, [], (3, 12), tmp_path)
    assert "not sourced" in text
    assert f"{tmp_path}/jazzy/setup.bash" in text


def test_another_python_than_rclpy_was_built_for_is_named(tmp_path):
    environ = installed(tmp_path, "humble", "3.10")
    assert "built for Python 3.10 and this is Python 3.12" in explain_absence(environ, [], (3, 12), tmp_path)


def test_the_version_of_the_compiled_part_counts_in_a_virtual_environment(tmp_path):
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").touch()
    (tmp_path / "rclpy" / "_rclpy_pybind11.cpython-311-x86_64-linux-gnu.so").touch()
    assert "built for Python 3.11" in explain_absence({}, [str(tmp_path)], (3, 13), tmp_path / "none")
    assert "incomplete" in explain_absence({}, [str(tmp_path)], (3, 11), tmp_path / "none")


def test_a_middleware_that_cannot_be_loaded_is_named_with_its_package():
    error = RuntimeError("failed to load shared library 'librmw_cyclonedds_cpp.so'")
    text = explain_middleware(error, {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp", "ROS_DISTRO": "jazzy"})
    assert text.startswith("no middleware (RMW_IMPLEMENTATION=rmw_cyclonedds_cpp)")
    assert "install ros-jazzy-rmw-cyclonedds-cpp" in text
    assert absent_middleware({"RMW_IMPLEMENTATION": "rmw_of_nobody"}) is not None
    assert absent_middleware({}) is None


def test_missing_message_packages_are_listed():
    assert missing_messages(lambda name: None if name == "std_srvs" else object()) == ["std_srvs"]


@pytest.mark.parametrize("node", ["policy_node", "recorder_node", "monitor_node", "mujoco_arm_node"])
def test_every_node_says_in_one_line_that_there_is_no_ros(node):
    words = [sys.executable, "-c", f"from robo_rm_bridge.entry_points import run; raise SystemExit(run({node!r}))"]
    done = subprocess.run(words, cwd=PACKAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{node}: rclpy is not installed") or "ROS 2" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_rclpy_is_imported_nowhere_but_in_the_bridge_and_the_source_is_python_3_10():
    for path in [*PACKAGE.rglob("*.py")]:
        ast.parse(path.read_text(), feature_version=(3, 10))
    wrong = [path for path in (ROOT / "hw" / "robo_hw").rglob("*.py") if "import rclpy" in path.read_text()]
    assert wrong == []
    assert tuple(sorted(MESSAGES)) == MESSAGES


# The simulated arm's controller


@pytest.fixture
def follower() -> CommandFollower:
    return CommandFollower(("a", "b"), np.array([0.1, 0.2]), timeout=0.2)


def test_the_follower_passes_through_the_points_at_their_times_and_rests_on_the_last(follower):
    points, speeds = [[0.2, 0.3], [0.3, 0.4]], [[1.0, 1.0], [0.0, 0.0]]
    assert follower.trajectory(5.0, ("a", "b"), [0.1, 0.3], points, speeds) is None
    assert np.allclose(follower.target(5.0)[0], [0.1, 0.2])
    assert np.allclose(follower.target(5.1)[0], [0.2, 0.3])
    assert np.allclose(follower.target(5.1)[1], 1.0, atol=1e-6)
    assert np.allclose(follower.target(9.0)[0], [0.3, 0.4])
    assert not follower.target(9.0)[1].any()


def test_joints_of_a_trajectory_may_come_in_any_order(follower):
    assert follower.trajectory(0.0, ("b", "a"), [0.1], [[4.0, 3.0]]) is None
    assert np.allclose(follower.target(1.0)[0], [3.0, 4.0])


@pytest.mark.parametrize(
    ("joints", "times", "points", "speeds"),
    [
        (("a",), [0.1], [[1.0]], None),
        (("a", "c"), [0.1], [[1.0, 1.0]], None),
        (("a", "b"), [0.1], [[1.0, np.nan]], None),
        (("a", "b"), [0.0], [[1.0, 1.0]], None),
        (("a", "b"), [0.2, 0.1], [[1.0, 1.0], [1.0, 1.0]], None),
        (("a", "b"), [0.1], [[1.0, 1.0]], [[0.1, 0.0]]),
        (("a", "b"), [], np.zeros((0, 2)), None),
    ],
)
def test_commands_that_a_controller_would_refuse_are_refused(follower, joints, times, points, speeds):
    assert follower.trajectory(0.0, joints, times, points, speeds) is not None
    assert follower.refused == 1
    assert np.allclose(follower.target(1.0)[0], [0.1, 0.2])


def test_silence_behind_the_last_command_is_noticed_once_and_holds_where_the_arm_is(follower):
    assert follower.positions(1.0, [0.5, 0.6]) is None
    assert not follower.watch(1.15, np.zeros(2))
    assert follower.watch(1.25, np.array([0.4, 0.4]))
    assert not follower.watch(2.0, np.zeros(2))
    assert follower.timeouts == 1
    assert np.allclose(follower.target(3.0)[0], [0.4, 0.4])
    assert follower.positions(3.0, [np.inf, 0.0]) is not None


def test_every_fault_that_can_be_played_changes_what_is_told():
    names, positions = ("a", "b"), np.array([0.1, 0.2])
    for fault in FAULTS:
        player = FaultPlayer()
        player.choose(fault, 100.0)
        told = player.joints(names, positions, 100.5)
        same = told is not None and told[0] == names and np.array_equal(told[1], positions)
        same = same and player.stamp(100.9) == 100.9 and not (player.no_images or player.frozen_images)
        same = same and player.follows and player.powered and not player.stray_publisher
        assert same is (fault == "none"), fault


# What was seen


def test_a_snapshot_exists_only_while_everything_needed_is_fresh():
    buffer = ObservationBuffer(DRAWER, VECTORS, 0.2)
    assert buffer.snapshot(NEEDS, 10.0) is None
    buffer.joints(list(DRAWER.joint_names), np.zeros(7), 10.0)
    buffer.image("front", np.zeros((128, 128, 3), np.uint8), 10.0)
    assert buffer.missing(NEEDS, 10.0) == ["observation.environment_state is missing or old"]
    assert buffer.vector("observation.environment_state", ["x", "y"], np.ones(2, np.float32), 10.0, 1.0) is None
    snapshot = buffer.snapshot(NEEDS, 10.05)
    assert snapshot is not None
    assert snapshot.observed_at == 10.0
    assert set(snapshot.arrays) == {"observation.environment_state"}
    assert buffer.snapshot(NEEDS, 10.3) is None, "it has grown old"


def test_a_further_input_with_other_names_or_a_number_that_is_none_does_not_count():
    buffer = ObservationBuffer(DRAWER, VECTORS, 0.2)
    key = "observation.environment_state"
    assert buffer.vector(key, ["x", "y"], np.ones(2), 1.0, 1.0) is None
    assert "names changed" in (buffer.vector(key, ["y", "x"], np.ones(2), 1.1, 1.1) or "")
    assert "not finite" in (buffer.vector(key, ["x", "y"], np.array([1.0, np.nan]), 1.1, 1.1) or "")
    assert "repeated" in (buffer.vector(key, ["x", "y"], np.ones(2), 1.1, 1.0) or "")


def test_needs_that_the_robot_cannot_meet_are_named():
    needs = {
        "observation.state": (6,),
        "observation.images.top": (128, 128, 3),
        "observation.images.front": (96, 96, 3),
        "observation.force": (6,),
    }
    lines = unmet_needs(needs, DRAWER, VECTORS)
    assert [line.split(":")[0] for line in lines] == list(needs)
    assert unmet_needs(NEEDS, DRAWER, VECTORS) == []


@pytest.mark.parametrize("entry", ["environment", "observation.state=/x", "observation.images.a=/x", "observation.a="])
def test_a_further_input_of_another_form_is_refused(entry):
    with pytest.raises(HardwareError, match=r"observation\.NAME=/topic"):
        parse_vectors([entry])


def test_timing_counts_the_error_as_a_share_of_the_period():
    timing = LoopTiming(0.02)
    for moment in (0.0, 0.02, 0.04, 0.062, 0.1):
        timing.tick(moment)
    assert timing.ticks == 5
    assert timing.late == 1
    assert timing.errors.quantiles(1.0)[0] == pytest.approx(0.9)
    assert np.isnan(Quantiles().quantiles(0.5)).all()
