"""Recorder and monitor through DDS, around the same bridge and simulated arm."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from rig import Rig, other_environment, project_python, rig
from std_msgs.msg import Float32, String
from std_srvs.srv import SetBool

STAGES = ("swing out", "swing back")
VECTORS = "[observation.environment_state=/environment_state]"


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("recording")) as made:
        yield made


@pytest.fixture(scope="session")
def store(processes: Rig) -> Path:
    """A store with four short recorded episodes, one of them judged a failure."""
    path = processes.folder / "demos.zarr"
    recorder = processes.start(
        "recorder_node",
        contract=processes.contract_file,
        store=path,
        bag=processes.folder / "bags",
        task="swing",
        stages=f"[{', '.join(STAGES)}]",
        vectors=VECTORS,
        max_age=2.0,
    )
    observer, name = processes.observer, "/robo_rm_recorder"
    for episode in range(4):
        processes.run()
        processes.wait("recording", lambda: observer.trigger(f"{name}/start")[0])
        processes.spin(0.9)
        assert observer.trigger(f"{name}/next_stage") == (True, STAGES[1])
        processes.spin(0.9)
        saved = observer.call(SetBool, f"{name}/save", SetBool.Request(data=episode != 3))
        assert saved.success, saved.message
    processes.wait("recording", lambda: observer.trigger(f"{name}/start")[0])
    assert observer.trigger(f"{name}/discard")[0]
    assert recorder.end() == 0, recorder.text()
    return path


def test_what_was_recorded_is_what_the_bridge_saw_and_commanded(processes, store):
    from robo_datasets import DemoStore

    demos = DemoStore.open(store)
    assert len(demos) == 4, "the discarded one is gone"
    assert demos.stages == list(STAGES) or tuple(demos.stages) == STAGES
    assert demos.fps == processes.contract.rates.actions
    for index, uuid in enumerate(demos.uuids):
        episode = demos.episode(uuid)
        assert episode.success is (index != 3)
        assert 10 <= episode.length <= 60
        assert set(np.unique(episode.stage)) == {0, 1}
        assert episode.task == "swing"
        assert episode["observation.environment_state"].shape == (episode.length, 15)
        state, action = episode["observation.state"][:], episode["action"][:]
        assert np.abs(state[:, :6] - action[:, :6]).max() < 0.3, "actions are positions, a little ahead of the joints"
        assert np.abs(np.diff(action, axis=0)).max() > 0.001, "it moved"
        assert (np.diff(episode.timestamp) > 0).all()
        assert episode["observation.images.front"][0].std() > 5


def test_a_reward_model_trains_on_it_as_it_is(processes, store):
    python = project_python()
    out = processes.folder / "rm"
    train = ["-m", "robo_core.cli.main", "train-reward", f"store={store}", f"out={out}", "steps=2", "holdout=1"]
    done = subprocess.run(
        [python, *train],
        env=other_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "model.safetensors").is_file()


def test_the_bag_holds_every_topic_and_reads_back(processes, store):
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    bags = sorted((processes.folder / "bags").iterdir())
    assert len(bags) >= 1
    with AnyReader(bags[:1], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        topics = {connection.topic: connection for connection in reader.connections}
        command = f"/{processes.contract.command.name}"
        assert {"/joint_states", command, "/front/image_raw", "/environment_state"} <= set(topics)
        connection, _, raw = next(reader.messages([topics[command]]))
        message = reader.deserialize(raw, connection.msgtype)
        assert tuple(message.joint_names) == processes.contract.joint_names


def test_the_monitor_streams_progress_and_asks_for_help_and_stops(processes):
    progress: list[float] = []
    stages: set[str] = set()
    advice: list[str] = []
    observer = processes.observer
    observer.create_subscription(Float32, "/robo_rm_monitor/progress", lambda m: progress.append(m.data), 10)
    observer.create_subscription(String, "/robo_rm_monitor/stage", lambda m: stages.add(m.data), 10)
    observer.create_subscription(String, "/robo_rm_monitor/advice", lambda m: advice.append(m.data), 10)
    processes.run()
    processes.server.say("rises")
    monitor = processes.start(
        "monitor_node",
        contract=processes.contract_file,
        policy_address=processes.address,
        rate=20.0,
        on_failing="stop",
    )
    processes.wait("progress rises over a half", lambda: bool(progress) and progress[-1] > 0.55, 10.0)
    assert stages == {"reach", "grasp"}
    assert advice == []
    processes.server.say("stalls")
    processes.wait("it asks for help", lambda: any(text.startswith("help: ") for text in advice))
    assert processes.state == "running", "advice is only advice"
    processes.server.say("falls")
    processes.wait("it stops", lambda: any(text.startswith("stop: ") for text in advice))
    processes.wait_state("disarmed")
    processes.keeps_the_limits()
    assert monitor.end() == 0, monitor.text()
