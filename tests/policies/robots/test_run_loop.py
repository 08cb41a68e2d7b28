"""The loop of run-policy around a robot of LeRobot's interface that fails in every way a driver can."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("lerobot")

from lerobot_robot_standin import HOME, MOTORS, StandIn, StandInConfig
from served_policies import Counting, Rising

from robo_datasets import DemoStore
from robo_hw import RobotContract, SafetyCore, State, SteadyClock
from robo_hw.contract.lerobot_units import LeRobotUnits
from robo_hw.errors import ContractError
from robo_hw.transport import ClientState, PolicyClient, PolicyServer, Timeouts
from robo_policies.robots.arm import ArmError
from robo_policies.robots.arm_threads import ArmThreads
from robo_policies.robots.lerobot_arm import LeRobotArm, LeRobotSettings, known_types, make_robot
from robo_policies.robots.recording import RunEpisode, open_run_store
from robo_policies.robots.run_loop import RunLoop

pytestmark = pytest.mark.alone


def contract(**changes) -> RobotContract:
    data = RobotContract.load("so101").to_dict()
    data["cameras"] = [data["cameras"][0] | {"width": 64, "height": 48}]
    data["lerobot"]["robots"] = ["standin"]
    # Room for a busy machine; what is tested is what happens at the deadline, not when it is.
    data["deadlines"] |= {"joint_states": 0.4, "chunk": 2.0, "actions": 2.0, "tick": 0.5}
    data["cameras"][0] |= {"degraded_after": 0.3, "stop_after": 0.8, "frozen_after": 0.8}
    data["safety"] |= {"cool_down": 0.5}
    return RobotContract.from_dict(data | changes)


ARM = contract()


class Rig:
    """A loop that is ticked by hand, in front of a stand-in and a policy server in this process."""

    def __init__(
        self, tmp_path, arm_contract=ARM, think: float = 0.0, store: DemoStore | None = None, **options
    ) -> None:
        self.contract = arm_contract
        self.robot = StandIn(StandInConfig(calibration_dir=tmp_path))
        self.arm = LeRobotArm(self.robot, arm_contract, "standin")
        self.policy = Rising(arm_contract, horizon=30, think=think)
        self.address = f"unix:{tmp_path}/policy.sock"
        self.server = PolicyServer(arm_contract, self.address, self.policy, Counting(arm_contract))
        self.server.__enter__()
        clock = SteadyClock()
        self.client = PolicyClient(arm_contract, self.address, clock, timeouts=Timeouts(retry=0.05))
        self.client.connect()
        self.arm.connect()
        self.threads = ArmThreads(self.arm, clock, arm_contract.rates.joint_states, patience=0.8)
        self.threads.start()
        self.core = SafetyCore(arm_contract, clock)
        self.lines: list[str] = []

        def begin():
            return None if store is None else RunEpisode(store, "swing", {"robot_type": "standin"})

        self.loop = RunLoop(
            arm_contract, self.core, clock, self.arm, self.threads, self.client,
            begin_episode=begin, say=self.lines.append, task="swing", **options,
        )  # fmt: skip

    def until(self, condition, seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited too long:\n" + "\n".join(self.lines)
            self.loop.tick()
            time.sleep(self.loop.period)

    def run_until_moving(self) -> None:
        self.until(lambda: any(line.startswith("ready") for line in self.lines))
        self.until(lambda: self.core.state is not State.DISARMED or self.loop.press("a"))
        self.until(lambda: self.core.state is State.RUNNING)

    def close(self) -> None:
        self.threads.close()
        self.client.close()
        self.server.__exit__(None, None, None)

    def told(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@contextmanager
def rig(tmp_path, **options):
    made = Rig(tmp_path, **options)
    try:
        yield made
    finally:
        made.close()


def test_a_policy_moves_the_robot_in_its_own_units_and_only_after_it_was_armed(tmp_path):
    with rig(tmp_path) as arm:
        arm.until(lambda: arm.told("ready"))
        arm.until(lambda: arm.threads.reads > 20)
        assert arm.robot.actions == []
        arm.run_until_moving()
        arm.until(lambda: len(arm.robot.actions) > 20)
        first = np.array([arm.robot.actions[0][f"{motor}.pos"] for motor in MOTORS])
        assert np.allclose(first, HOME, atol=0.2)  # degrees, and 0..100
        positions = LeRobotUnits(ARM).to_contract([[a[f"{m}.pos"] for m in MOTORS] for a in arm.robot.actions])
        low, high = ARM.array("position").T
        assert (positions >= low - 1e-9).all()
        assert (positions <= high + 1e-9).all()
        assert positions[-1, 0] > positions[0, 0]  # the policy lets every joint rise
        seen = arm.policy.seen[-1].values["observation.state"]
        assert np.allclose(seen[1], np.deg2rad(HOME[1]), atol=0.3)
        arm.loop.press("d")
        arm.until(lambda: arm.core.state is State.DISARMED)


@pytest.mark.parametrize(
    ("fault", "state", "match"),
    [
        ({"missing": "elbow_flex.pos"}, State.FAULT, "elbow_flex"),
        ({"nan": "wrist_roll.pos"}, State.FAULT, "wrist_roll is nan"),
        ({"jump": "shoulder_pan.pos"}, State.FAULT, "shoulder_pan"),
        ({"slow": 0.6}, State.FAULT, "joint states are"),
        ({"camera": "none"}, State.HOLDING, "no image came"),
        ({"camera": "gone"}, State.HOLDING, "no image came"),
        ({"camera": "empty"}, State.HOLDING, "an empty image came"),
        ({"camera": "small"}, State.HOLDING, "an image of (10, 64, 3) uint8 came, the contract says (48, 64, 3)"),
        ({"camera": "float"}, State.HOLDING, "float64 came"),
        ({"camera": "frozen"}, State.HOLDING, "camera front"),
        ({"stuck": True}, State.FAULT, "lags"),
    ],
)  # fmt: skip
def test_what_the_driver_gets_wrong_stops_the_arm_and_is_named(tmp_path, fault, state, match):
    tight = ARM
    if "stuck" in fault:
        data = ARM.to_dict()
        data["joints"] = [joint | {"following_error": 0.01} for joint in data["joints"]]
        tight = RobotContract.from_dict(data)
    with rig(tmp_path, arm_contract=tight) as arm:
        arm.run_until_moving()
        arm.robot.faults = fault
        arm.until(lambda: arm.core.state is state and arm.told(match))
        arm.robot.faults = {}
        if state is State.HOLDING:
            arm.until(lambda: arm.core.state is State.RUNNING)  # it goes on when the camera is back


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ({"unplugged": True}, "standin is no longer connected"),
        ({"read": True}, "standin: reading has failed for"),
        ({"write": True}, "standin: writing has failed for"),
    ],
)
def test_a_robot_that_is_gone_ends_the_run_and_is_said(tmp_path, fault, match):
    with rig(tmp_path) as arm:
        arm.run_until_moving()
        arm.robot.faults = fault
        assert match in arm.loop.run()
    assert arm.robot.calls[-1] == "disconnect" or "unplugged" in fault


def test_one_lost_packet_does_not_stop_a_run(tmp_path):
    with rig(tmp_path) as arm:
        arm.run_until_moving()
        arm.robot.faults = {"read": True}
        arm.until(lambda: arm.threads.failures >= 1)
        arm.robot.faults = {}
        arm.until(lambda: arm.told("reading fails: Failed to sync read"))
        count = len(arm.robot.actions)
        arm.until(lambda: len(arm.robot.actions) > count + 10)
        assert arm.core.fault is None


def test_the_control_loop_keeps_its_rate_while_driver_and_policy_are_slow(tmp_path):
    with rig(tmp_path, think=0.4) as arm:
        arm.run_until_moving()
        arm.robot.faults = {"slow": 0.15}
        durations = []
        for _ in range(50):
            began = time.perf_counter()
            arm.loop.tick()
            durations.append(time.perf_counter() - began)
            time.sleep(arm.loop.period)
        assert np.median(durations) < 0.2 * arm.loop.period
        assert arm.core.fault is None


@pytest.mark.parametrize("key", [" ", "e"])
def test_the_emergency_stop_latches_until_it_is_reset_by_hand(tmp_path, key):
    with rig(tmp_path) as arm:
        arm.run_until_moving()
        arm.loop.press(key)
        arm.until(lambda: arm.core.state is State.FAULT)
        arm.loop.press("a")
        arm.until(lambda: arm.told("refused: the arm cannot be armed: fault 'e_stop' is latched"))
        time.sleep(0.6)
        arm.loop.press("r")
        arm.until(lambda: arm.told("reset; disarmed"))
        arm.until(lambda: arm.core.state is State.DISARMED)
        arm.run_until_moving()


def test_a_file_is_an_emergency_stop_as_long_as_it_exists(tmp_path):
    pressed = [""]
    with rig(tmp_path, estop_pressed=lambda: pressed[0]) as arm:
        arm.run_until_moving()
        pressed[0] = "emergency stop: the file /run/stop exists"
        arm.until(lambda: arm.core.state is State.FAULT)
        time.sleep(0.6)
        arm.loop.press("r")
        arm.until(lambda: arm.told("refused: emergency stop: the file /run/stop exists"))


def test_a_run_is_recorded_with_interventions_and_outcome(tmp_path):
    store = open_run_store(str(tmp_path / "runs.zarr"), ARM, {}, ())
    with rig(tmp_path, store=store) as arm:
        arm.run_until_moving()
        arm.until(lambda: arm.loop.episode.frames > 20)
        arm.robot.faults = {"camera": "none"}
        arm.until(lambda: arm.core.state is State.HOLDING)
        arm.robot.faults = {}
        arm.until(lambda: arm.core.state is State.RUNNING)
        arm.loop.press("s")
        arm.until(lambda: arm.told("recorded"))
        arm.run_until_moving()
        arm.until(lambda: arm.loop.episode.frames > 5)
        arm.loop.press("x")
        arm.until(lambda: arm.told("no episode kept"))
        arm.run_until_moving()
        arm.until(lambda: arm.loop.episode.frames > 5)
        arm.loop.press(" ")
        arm.until(lambda: arm.core.state is State.FAULT)
        arm.loop.end("asked to quit")
        arm.loop.run()
    episodes = DemoStore.open(tmp_path / "runs.zarr")
    assert len(episodes) == 2
    kept = sorted((episodes[i] for i in range(2)), key=lambda episode: episode.success is None)
    assert kept[0].success is True
    assert kept[0].task == "swing"
    kinds = {entry["kind"] for entry in kept[0].attributes["interventions"]}
    assert "stop" in kinds
    assert kept[1].success is None
    assert "emergency stop by key" in kept[1].attributes["ended"]
    state = kept[0]["observation.state"][:]
    assert state.shape[1] == 6
    assert np.abs(state).max() < 3  # radians: the contract's units, whatever the robot's
    assert episodes.contract_hash == ARM.hash


def test_a_store_of_another_robot_is_not_recorded_into(tmp_path):
    open_run_store(str(tmp_path / "runs.zarr"), RobotContract.load("tidy_drawer"), {}, ())
    from robo_core.errors import StoreError

    with pytest.raises(StoreError, match=r"other features|another store"):
        open_run_store(str(tmp_path / "runs.zarr"), ARM, {}, ())


# Before anything is connected ---------------------------------------------------------------------------------------


def standin(tmp_path, **config) -> StandIn:
    return StandIn(StandInConfig(calibration_dir=tmp_path, **config))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"motors": list(MOTORS[:5])}, "standin has no observation 'gripper.pos'; it has shoulder_pan.pos"),
        ({"motors": [*MOTORS, "seventh"]}, "standin also takes seventh.pos, which the contract so101 has no joint for"),
        ({"height": 50}, r"camera front of standin gives \(50, 64, 3\), the contract says \(48, 64, 3\)"),
    ],
)
def test_a_robot_that_does_not_fit_the_contract_is_refused_by_name(tmp_path, config, match):
    with pytest.raises(ArmError, match=match):
        LeRobotArm(standin(tmp_path, **config), ARM, "standin")


def test_a_contract_for_another_robot_or_without_the_section_is_refused(tmp_path):
    with pytest.raises(ArmError, match="has a section lerobot for so101_follower, so100_follower, not for standin"):
        LeRobotArm(standin(tmp_path), RobotContract.load("so101"), "standin")
    with pytest.raises(ContractError, match="has no section lerobot"):
        LeRobotArm(standin(tmp_path), RobotContract.load("ur5e"), "standin")


def test_an_uncalibrated_robot_and_one_that_cannot_be_reached_are_not_run(tmp_path):
    robot = standin(tmp_path, id="mine")
    robot.faults = {"uncalibrated": True}
    with pytest.raises(
        ArmError, match=r"standin is not calibrated .*lerobot-calibrate --robot.type=standin --robot.id=mine"
    ):
        LeRobotArm(robot, ARM, "standin").connect()
    assert robot.calls == ["connect", "disconnect"]
    robot.faults = {"no_port": True}
    with pytest.raises(ArmError, match="standin cannot be connected: Could not connect on port"):
        LeRobotArm(robot, ARM, "standin").connect()


def test_a_calibration_of_another_arm_is_refused_by_motor(tmp_path):
    motor = {"id": 1, "drive_mode": 0, "homing_offset": 0, "range_min": 700, "range_max": 3400}
    ranges = dict.fromkeys(MOTORS, motor)
    data = ARM.to_dict()
    data["lerobot"]["calibration"] = ranges | {"wrist_roll": ranges["wrist_roll"] | {"range_min": 0, "range_max": 4095}}
    mine = RobotContract.from_dict(data)
    robot = standin(tmp_path)
    robot.calibration = {name: dict(entry) for name, entry in data["lerobot"]["calibration"].items()}
    LeRobotArm(robot, mine, "standin").connect()
    robot.disconnect()
    robot.calibration["elbow_flex"]["range_min"] = 900
    with pytest.raises(ArmError, match=r"elbow_flex of standin is calibrated from 900 to 3400, the contract's .* 700"):
        LeRobotArm(robot, mine, "standin").connect()
    robot.calibration["elbow_flex"] = ranges["elbow_flex"] | {"range_min": 1500, "range_max": 2500}
    with pytest.raises(ArmError, match="elbow_flex: the calibrated range is"):
        LeRobotArm(robot, ARM, "standin").connect()


def test_an_unknown_type_lists_what_is_known():
    with pytest.raises(
        ArmError, match=r"robot.type=so102_follower is not known .*did you mean so10.*koch_follower.*standin"
    ):
        make_robot(LeRobotSettings(type="so102_follower"))
    assert {"so101_follower", "koch_follower", "standin"} <= set(known_types())
    with pytest.raises(ArmError, match=r"does not take these settings: .*port"):
        make_robot(LeRobotSettings(type="so101_follower"))
    with pytest.raises(ArmError, match=r"does not take these settings: .*colour"):
        make_robot(LeRobotSettings(type="standin", options={"colour": "red"}))
    assert isinstance(make_robot(LeRobotSettings(type="standin", options={"height": 50})), StandIn)


def test_a_server_for_another_arm_is_not_armed_with(tmp_path):
    with rig(tmp_path) as arm:
        arm.until(lambda: arm.client.status().state is ClientState.CONNECTED)
        arm.policy.info.needs["observation.force"] = (3,)
        arm.client.close()
        arm.client.connect()
        arm.until(lambda: arm.client.status().state is ClientState.CONNECTED and arm.threads.reads > 10)
        arm.loop.press("a")
        arm.until(lambda: arm.told("observation.force"))
        assert arm.core.state is State.DISARMED
