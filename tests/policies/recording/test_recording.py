"""``robo-rm record``: what is written, that it is the same however it is recorded, resuming, and bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from robo_core.errors import ConfigError, MissingPartError, StoreError
from robo_datasets import DemoStore
from robo_policies import rendering
from robo_policies.envs.demonstrations import QUALITIES
from robo_policies.envs.tidy_drawer.progress import STAGES
from robo_policies.recording.recorder import (
    FRAMES_AFTER_SUCCESS,
    RecordingPlan,
    check_mixture,
    record_episode,
    record_episodes,
)

SMALL = ("image_size=16", "cameras=[front]")
EVEN = dict.fromkeys(QUALITIES, 1.0)


def episodes_by_index(path: Path) -> dict[int, dict[str, np.ndarray]]:
    store = DemoStore.open(path)
    return {
        episode.attributes["index"]: {
            **{key: episode[key][:] for key in store.features},
            "stage": episode.stage,
            "success": np.array(episode.success),
        }
        for episode in store
    }


def same(first: dict[int, dict[str, np.ndarray]], second: dict[int, dict[str, np.ndarray]]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[index][key], second[index][key]) for index in first for key in first[index]
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clean episodes recorded by two processes through the command."""
    path = tmp_path_factory.mktemp("recorded") / "demos.zarr"
    command = ["record", "env=tidy_drawer", f"store={path}", "episodes=3", "quality=clean", "processes=2", *SMALL]
    done = subprocess.run(
        [sys.executable, "-m", "robo_core.cli.main", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3/3 episodes" in done.stderr
    assert "clean" in done.stdout
    return path


def test_episodes_carry_everything_that_was_promised(recorded: Path):
    store = DemoStore.open(recorded)
    assert store.stages == list(STAGES)
    assert store.fps == 20
    assert len(store) == 3
    for index, episode in enumerate(store):
        attributes = {"quality": "clean", "requested": "clean", "seed": 0, "index": index, "env": "tidy_drawer"}
        assert episode.attributes == attributes
        assert episode.success is True
        assert "drawer" in episode.task
        assert 200 <= episode.length <= 500
        assert episode["observation.images.front"].shape == (episode.length, 16, 16, 3)
        assert episode["observation.state"].shape == episode["action"].shape == (episode.length, 7)
        progress = episode["simulator.progress"][:, 0]
        assert progress[0] < 0.1
        assert (progress[-FRAMES_AFTER_SUCCESS:] == 1).all()
        assert (progress == 1).sum() <= FRAMES_AFTER_SUCCESS + 2, "an idle tail"
        assert set(episode.stage) == set(range(len(STAGES)))
        assert np.diff(episode.timestamp) == pytest.approx(0.05)


def test_actions_lead_to_the_next_state(recorded: Path):
    episode = DemoStore.open(recorded)[0]
    gap = np.abs(episode["action"][:-1, :6] - episode["observation.state"][1:, :6])
    assert np.median(gap.max(1)) < 0.05


def test_one_process_records_the_same_as_two(recorded: Path, tmp_path: Path, run_command):
    path = tmp_path / "alone.zarr"
    code, _, error = run_command("record", f"store={path}", "episodes=3", "quality=clean", "processes=1", *SMALL)
    assert code == 0, error
    assert same(episodes_by_index(path), episodes_by_index(recorded))
    assert DemoStore.open(path).uuids == DemoStore.open(recorded).uuids


def test_same_command_again_records_nothing_and_more_episodes_only_the_missing(tmp_path: Path, run_command):
    path = tmp_path / "demos.zarr"
    words = ("record", f"store={path}", "quality=stops_partway", "cameras=[]", "image_size=16", "processes=1")
    assert run_command(*words, "episodes=1")[0] == 0
    before = DemoStore.open(path)[0].created
    code, out, _ = run_command(*words, "episodes=1")
    assert code == 0
    assert "holds 1 of these 1" in out
    assert "recorded" not in out
    assert run_command(*words, "episodes=2")[0] == 0
    store = DemoStore.open(path)
    assert [episode.attributes["index"] for episode in store] == [0, 1]
    assert store[0].created == before
    assert run_command(*words, "episodes=1", "seed=1")[0] == 0
    assert len(DemoStore.open(path)) == 3


def test_killed_recording_goes_on_and_ends_as_if_never_interrupted(tmp_path: Path, run_command):
    words = ["record", "episodes=3", "quality=stops_partway", "cameras=[front]", "image_size=16", "seed=3"]
    killed, whole = tmp_path / "killed.zarr", tmp_path / "whole.zarr"
    process = subprocess.Popen(
        [sys.executable, "-m", "robo_core.cli.main", *words, f"store={killed}", "processes=1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(killed.glob(".staging/*")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(killed.glob(".staging/*")), "nothing was left half done"
    for path in (killed, whole):
        code, _, error = run_command(*words, f"store={path}", "processes=1")
        assert code == 0, error
    assert same(episodes_by_index(killed), episodes_by_index(whole))
    assert DemoStore.open(killed).uuids == DemoStore.open(whole).uuids
    assert not list(killed.glob(".staging/*"))


def test_interrupted_workers_leave_a_good_store(tmp_path: Path):
    path = tmp_path / "demos.zarr"
    words = ["record", "episodes=50", "quality=stops_partway", "cameras=[front]", "image_size=16", "processes=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "robo_core.cli.main", *words, f"store={path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests themselves run in the background of a shell, Ctrl-C is ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(path.glob("episodes/*/COMMIT.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches every process of the group
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again to resume" in error
    assert "Traceback" not in error
    store = DemoStore.open(path)
    assert 1 <= len(store) < 50
    for episode in store:
        episode.verify()
    assert not list(path.glob(".staging/*")), "the workers did not discard what they had begun"


def test_failing_worker_is_reported_with_its_reason(tmp_path: Path):
    plan = RecordingPlan("tidy_drawer", "clean", 0, image_size=16, cameras=("front",))
    DemoStore.create(tmp_path / "demos.zarr", {"action": {"shape": (7,), "dtype": "float32"}}, fps=20, stages=STAGES)
    with pytest.raises(StoreError, match="unknown features"):
        record_episodes(tmp_path / "demos.zarr", plan, [0, 1], "2026-01-01T00:00:00Z", 2, lambda recorded: None)


def test_running_recorder_is_not_disturbed_by_a_second_one(tmp_path: Path):
    plan = RecordingPlan("tidy_drawer", "clean", 0, image_size=16, cameras=())
    env = plan.make_env()
    store = DemoStore.create(tmp_path / "demos.zarr", plan.features(), env.fps, env.stages)
    frame = {key: np.zeros(feature["shape"], feature["dtype"]) for key, feature in plan.features().items()}
    with store.writer(task="the first", uuid=plan.uuid_of(0)) as first:
        with pytest.raises(StoreError, match="by another process"):
            record_episode(store, env, plan, 0, "2026-01-01T00:00:00Z")
        first.add(frame)
    assert store[0].task == "the first"


def test_mixture_shares_are_kept_at_every_length():
    mixture = {"clean": 0.5, "slow": 0.3, "wrong_order": 0.2}
    for seed in range(5):
        plan = RecordingPlan("tidy_drawer", "mixed", seed, mixture=mixture)
        for count in (10, 40, 100):
            drawn = Counter(plan.quality_of(index) for index in range(count))
            assert set(drawn) == set(mixture)
            assert all(abs(drawn[name] - share * count) <= 2 for name, share in mixture.items())


def test_episodes_of_other_seeds_qualities_and_mixtures_are_others():
    plans = [
        RecordingPlan("tidy_drawer", "mixed", 0, mixture=EVEN),
        RecordingPlan("tidy_drawer", "mixed", 1, mixture=EVEN),
        RecordingPlan("tidy_drawer", "mixed", 0, mixture={"clean": 1.0}),
        RecordingPlan("tidy_drawer", "clean", 0, mixture=EVEN),
    ]
    assert len({plan.uuid_of(index) for plan in plans for index in range(20)}) == 80


@pytest.mark.parametrize("mixture", [None, {}, {"clean": 0.0}, {"clean": -1.0}, {"clen": 1.0}, {"clean": float("nan")}])
def test_bad_mixture_is_refused(mixture):
    with pytest.raises(ConfigError, match="mixture"):
        check_mixture(mixture)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("env=tidy_drawr",), "tidy_drawer"),
        (("quality=perfect",), "drop_and_regrasp"),
        (("cameras=[top]",), "front, wrist"),
        (("image_size=2",), "out of range"),
        (("episodes=0",), "at least 1"),
        (("seed=-1",), "0 or more"),
        (("processes=-1",), "0 (one per core)"),
        (("render=pretty",), "fast, default"),
        (("mixture.clen=1",), "clean"),
        (("qualty=clean",), "quality"),
    ],
)
def test_bad_input_gives_one_line_and_writes_nothing(tmp_path: Path, run_command, words, message):
    path = tmp_path / "demos.zarr"
    code, out, error = run_command("record", f"store={path}", *words)
    assert (code, out) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not path.exists()


def test_store_of_another_schema_gives_one_line(recorded: Path, run_command):
    code, _, error = run_command("record", f"store={recorded}", "image_size=32", "cameras=[front]")
    assert code == 2
    assert "another schema" in error
    assert len(error.splitlines()) == 1
    assert len(DemoStore.open(recorded)) == 3


def test_missing_gl_backend_is_found_before_anything_is_written(tmp_path: Path, run_command, monkeypatch):
    def broken(*_: object) -> None:
        raise MissingPartError("no GL here")

    monkeypatch.setattr(rendering.CameraRenderer, "__init__", broken)
    code, _, error = run_command("record", f"store={tmp_path / 'demos.zarr'}")
    assert code == 2
    assert "no GL here" in error
    assert not (tmp_path / "demos.zarr").exists()


@pytest.mark.parametrize("task", ["drawer-open-v3", "push-v3"])
def test_meta_world_is_recorded_with_its_own_stages_and_keys(task: str, run_command, tmp_path: Path):
    path = tmp_path / "demos.zarr"
    words = ("record", f"env=metaworld/{task}", f"store={path}", "episodes=2", "quality=clean", "processes=1", *SMALL)
    code, _, errors = run_command(*words, "environment_state=false")
    assert code == 0, errors
    store = DemoStore.open(path)
    assert (store.fps, store.stages[0]) == (40, "reach")
    assert "observation.environment_state" not in store.features
    for episode in store:
        assert episode.success is True, "a success stays one while the recording runs on"
        assert episode["observation.state"].shape == episode["action"].shape == (episode.length, 4)
        assert np.abs(episode["action"][:]).max() <= 1
        progress = episode["simulator.progress"][:, 0]
        assert progress[0] < 0.1
        assert (progress[-FRAMES_AFTER_SUCCESS:] == 1).all()
        assert episode.stage[-1] == len(store.stages) - 1
    code, _, errors = run_command(*words)
    assert (code, errors.count("\n")) == (2, 1)
    assert "another schema" in errors
