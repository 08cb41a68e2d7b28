"""`robo-rm run-policy` as a process in a terminal: keys, signals, refusals, and an end in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("lerobot")

from lerobot_robot_standin import MOTORS
from served_policies import Counting, Rising
from terminal_process import TerminalProcess

from robo_core.cli.main import main
from robo_datasets import DemoStore
from robo_hw import RobotContract
from robo_hw.transport import PolicyServer

HELPERS = Path(__file__).resolve().parents[2] / "helpers"


pytestmark = pytest.mark.alone


def small_contract() -> RobotContract:
    data = RobotContract.load("so101").to_dict()
    data["lerobot"]["robots"] = ["standin"]
    data["cameras"] = [data["cameras"][0] | {"width": 64, "height": 48, "degraded_after": 0.4, "stop_after": 1.5}]
    data["deadlines"] |= {"joint_states": 0.6, "chunk": 3.0, "actions": 3.0, "tick": 0.4}
    data["safety"] |= {"cool_down": 0.5}
    return RobotContract.from_dict(data)


class Bench:
    """A contract file, a plugin of LeRobot's as pip installs one, and a policy server, for one command."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.contract = tmp_path, small_contract()
        self.control, self.log = tmp_path / "control.json", tmp_path / "log.txt"
        (tmp_path / "arm.yaml").write_text(yaml.safe_dump(self.contract.to_dict()))
        site = tmp_path / "site"
        site.mkdir()
        (site / "lerobot_robot_standin").symlink_to(HELPERS / "lerobot_robot_standin")
        info = site / "lerobot_robot_standin-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lerobot_robot_standin\nVersion: 0.1\n")
        self.environment = {"PYTHONPATH": str(site)}
        self.address = f"unix:{tmp_path}/policy.sock"
        self.policy = Rising(self.contract, horizon=30)
        self.server = PolicyServer(self.contract, self.address, self.policy, Counting(self.contract))

    def __enter__(self) -> Bench:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__(None, None, None)

    def words(self, *more: str) -> list[str]:
        options = f"robot.options={{control: '{self.control}', log: '{self.log}'}}"
        return ["run-policy", "robot=lerobot", "robot.type=standin", f"robot.calibration_dir={self.folder}", options,
                f"contract={self.folder}/arm.yaml", f"policy_address={self.address}", *more]  # fmt: skip

    def start(self, *more: str) -> TerminalProcess:
        return TerminalProcess(*self.words(*more), environment=self.environment)

    def play(self, **fault: object) -> None:
        self.control.write_text(json.dumps(fault))

    def actions(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture
def bench(tmp_path):
    with Bench(tmp_path) as made:
        yield made


def arm(run: TerminalProcess) -> int:
    place = run.wait_for("ready: everything")
    for _ in range(10):  # on a busy machine a joint state may just be late
        run.press("a")
        time.sleep(1.0)
        if "holding -> running" in run.text[place:]:
            return place
    return run.wait_for("holding -> running", after=place)


def test_a_whole_session_with_keys(bench):
    with bench.start(f"record={bench.folder}/runs.zarr", "task=swing", f"out={bench.folder}/out") as run:
        run.wait_for("standin cuts the motors' torque at disconnect")
        assert not bench.log.exists() or bench.actions() == []
        place = arm(run)
        time.sleep(1.0)
        run.press("?")
        place = run.wait_for("emergency stop (space, or e)", after=place)
        run.press(" ")
        place = run.wait_for("fault: emergency stop by key", after=place)
        time.sleep(1.0)
        run.press("r")
        place = run.wait_for("reset; disarmed", after=place)
        run.press("f")
        place = run.wait_for(": failure", after=place)
        time.sleep(0.5)
        run.press("a")
        place = run.wait_for("holding -> running", after=place)
        time.sleep(1.0)
        run.press("s")
        place = run.wait_for(": success", after=place)
        run.press("q")
        assert run.finish() == 0, run.text
    assert "ended: asked to quit" in run.text
    assert bench.log.read_text().splitlines()[-1] == "disconnect"
    first = bench.actions()[0]
    assert [round(first[f"{motor}.pos"]) for motor in MOTORS] == [5, -60, 70, 30, -20, 40]
    store = DemoStore.open(bench.folder / "runs.zarr")
    outcomes = {store[i].success: store[i] for i in range(len(store))}
    assert set(outcomes) == {True, False}
    failed = outcomes[False].attributes
    assert failed["robot_type"] == "standin"
    assert any("emergency stop by key" in entry["message"] for entry in failed["interventions"])
    metrics = json.loads((bench.folder / "out/metrics.json").read_text())
    assert metrics["episodes"] == 2
    assert metrics["successes"] == 1
    assert metrics["arm_failures"] == 0


@pytest.mark.parametrize("way", ["SIGINT", "SIGTERM", "ctrl-c", "hang up"])
def test_every_way_to_end_brakes_disarms_and_disconnects(bench, way):
    with bench.start() as run:
        arm(run)
        if way == "hang up":
            run.hang_up()
        elif way == "ctrl-c":
            run.press("\x03")
        else:
            run.signal({"SIGINT": 2, "SIGTERM": 15}[way])
        code = run.finish()
    if way != "hang up":
        assert code == 0, run.text
    assert bench.log.read_text().splitlines()[-1] == "disconnect"
    actions = np.array([list(action.values()) for action in bench.actions()])
    steps = np.abs(np.diff(actions, axis=0)).max(axis=1)
    assert steps[-1] <= steps.max() / 2 + 1e-9  # it came to rest before it let go


def test_signals_files_and_lost_arms(bench):
    with bench.start(f"estop_file={bench.folder}/stop") as run:
        place = arm(run)
        run.signal(10)
        place = run.wait_for("fault: emergency stop by SIGUSR1", after=place)
        (bench.folder / "stop").touch()
        time.sleep(1.0)
        run.press("r")
        place = run.wait_for("refused: emergency stop: the file", after=place)
        (bench.folder / "stop").unlink()
        time.sleep(1.0)
        run.press("r")
        place = run.wait_for("reset; disarmed", after=place)
        bench.play(unplugged=True)
        assert run.finish() == 2, run.text
    assert "robo-rm run-policy: standin is no longer connected (the port is closed)" in run.text


def test_without_a_terminal_nothing_is_connected_and_it_says_how_to_arm(bench):
    executable = Path(sys.executable).parent / "robo-rm"
    done = subprocess.run(
        [str(executable), *bench.words()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | bench.environment,
        check=False,
    )
    assert done.returncode == 2
    assert "standard input is not a terminal" in done.stderr
    assert "ssh -t" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not bench.log.exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["robot.type=so110"], "robot.type=so110 is not known to LeRobot here"),
        (["robot=simulatd"], "robot=simulatd is not one of: lerobot, simulated"),
        (["robot.ports=/dev/x"], "there is no setting 'robot.ports'"),
        (["policy=somewhere"], "give policy=DIR, to run it in this process, or policy_address"),
        (["contract=ur5e"], "the contract ur5e has no section lerobot"),
        (["contract=so101"], "has a section lerobot for so101_follower, so100_follower, not for standin"),
        (["robot=simulated", "contract=so101"], "its joints are not the simulated arm's"),
        (["mode=fast"], "mode='fast' is not a way to put chunks together"),
        (["on_progress=cry"], "on_progress='cry' is neither say nor stop"),
        (["reward_model=rm"], "give it to robo-rm serve-policy"),
        (["policy_address=tcp://"], "address"),
    ],
)
def test_a_wrong_command_is_one_line(bench, capsys, words, match):
    given = bench.words()
    for word in words:
        key = word.partition("=")[0]
        given = [old for old in given if old.partition("=")[0] != key]
        if word.startswith("robot=simulat"):
            given = [old for old in given if not old.startswith("robot.")]
    assert main([*given, *words]) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.count("\n") == 1


def test_the_simulated_arm_runs_a_policy_in_this_process(tmp_path):
    from robo_policies.cloning.checkpoint import write_card
    from robo_policies.cloning.learners import make_learner
    from robo_policies.cloning.settings import ActSettings

    home = np.array([0.0, 0.0, 0.0, 0.0, 1.57, 0.0, 0.5], np.float32)
    dims = {"observation.state": 7, "observation.environment_state": 15, "action": 7}
    statistics = {}
    for key, size in dims.items():
        middle = home if size == 7 else np.zeros(15, np.float32)
        spread = np.full(size, 0.02 if key == "action" else 1.0, np.float32)
        statistics[key] = {"mean": middle, "std": spread, "min": middle - 1, "max": middle + 1}
    settings = ActSettings(
        chunk_size=20,
        execution_horizon=8,
        dim_model=16,
        n_heads=2,
        dim_feedforward=16,
        n_encoder_layers=1,
        use_vae=False,
    )
    make_learner(settings, dims, {}).save(tmp_path / "policy", statistics)
    write_card(tmp_path / "policy", {"policy": settings.name, "fps": 20.0})
    data = RobotContract.load("tidy_drawer").to_dict()
    data["deadlines"] |= {"joint_states": 1.0, "chunk": 3.0, "actions": 3.0, "tick": 0.35, "skew": 1.0}
    for camera in data["cameras"]:
        camera |= {"degraded_after": 2.0, "stop_after": 4.0, "frozen_after": 8.0}
    (tmp_path / "drawer.yaml").write_text(yaml.safe_dump(data))
    with TerminalProcess(
        "run-policy", "robot=simulated", f"contract={tmp_path}/drawer.yaml", f"policy={tmp_path}/policy", "device=cpu",
        f"record={tmp_path}/runs.zarr", "task=tidy", f"out={tmp_path}/out",
    ) as run:  # fmt: skip
        arm(run)
        time.sleep(2.0)
        run.press("f")
        run.wait_for(": failure")
        run.press("q")
        assert run.finish() == 0, run.text
    store = DemoStore.open(tmp_path / "runs.zarr")
    assert len(store) == 1
    assert store[0].length > 5
    assert store[0]["observation.environment_state"].shape[1] == 15
