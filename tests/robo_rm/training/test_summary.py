"""Before training: what is used, what is left out, and what should be known about it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from moving_square import CAMERA, STATE, make_store

from robo_core.errors import ConfigError, StoreError
from robo_datasets import DemoStore
from robo_rm.labels.progress import stored_labels
from robo_rm.labels.tasks import task_priors
from robo_rm.training.summary import Split, check_finite, check_split, summarise

TINY = ["encoder.image_size=24", "encoder.channels=[8,8,16]", "encoder.stem=2", "reward.width=16", "reward.layers=1"]


def episode(success=True, task="sort", stage=(0, 1), uuid="e"):
    return SimpleNamespace(success=success, task=task, stage=np.array(stage), uuid=uuid, length=len(stage))


def test_episodes_are_counted_by_task_and_stage():
    split = Split(
        [episode(), episode(False), episode(None, "pour", (2, 2))],
        [episode()],
        unlabelled=[episode(stage=(-1, -1), uuid=f"u{n}") for n in range(4)],
    )
    found = summarise(split, ["a", "b", "c", "d"])
    assert found.columns == ["task", "train", "held out", "unlabelled", "succeeded", "failed", "outcome unknown"]
    assert found.tasks[0] == ["pour", 1, 0, 0, 0, 0, 1]
    assert found.tasks[1] == ["sort", 2, 1, 4, 6, 1, 0]
    assert found.tasks[2] == ["all", 3, 1, 4, 6, 1, 1]
    assert found.stages == [["a", 2, 1, "33.3%"], ["b", 2, 1, "33.3%"], ["c", 1, 0, "33.3%"], ["d", 0, 0, "0.0%"]]
    text = "\n".join(found.notes)
    assert "4 of 8 episodes have no stage labels and train nothing (u0, u1, u2, ...)" in text
    assert "no training episode enters the stages 'd'" in text
    assert "1 training episode has no outcome" in text


def test_a_task_without_labels_is_named():
    split = Split([episode()], [episode()], unlabelled=[episode(task="pour", stage=(-1,))])
    assert any("no episode of the task 'pour' is trained on" in note for note in summarise(split, ["a", "b"]).notes)


def test_a_split_that_trains_on_two_of_ten_is_refused():
    store = SimpleNamespace(path="s.zarr")
    with pytest.raises(ConfigError, match="holdout=8 leaves 2 of 10 episodes"):
        check_split(Split([episode()] * 2, [episode()] * 8), store, 8)
    check_split(Split([episode()] * 2, [episode()]), store, 1)
    with pytest.raises(ConfigError, match=r"to train on \(3 more have no outcome, 1 more failed\)"):
        check_split(
            Split([episode()], [episode()] * 3, unmarked=[episode(None)] * 3, failed=[episode(False)]), store, 3
        )
    crowd = Split([episode()] * 4, [episode()] * 8)
    check_split(crowd, store, 8)
    assert any("more episodes are held out (8) than trained on (4)" in note for note in summarise(crowd, []).notes)


def test_what_is_not_finite_is_named_by_episode_frame_key_and_place():
    values = np.zeros((5, 3))
    values[3, 1] = -np.inf
    with pytest.raises(StoreError, match=r"episode abc, frame 3: observation.state\[1\] is -inf"):
        check_finite(values, "abc", "observation.state", "s.zarr")


@pytest.mark.parametrize("kind", ["stage", "hop", "success", "goal_distance", "frame_index"])
def test_a_nan_in_a_state_is_found_before_training(tmp_path, run_command, kind):
    plain = make_store(tmp_path / "plain.zarr", episodes=4, frames=6)
    store = DemoStore.create(tmp_path / "s.zarr", plain.features, plain.fps, stages=plain.stages)
    for number, one in enumerate(plain):
        state = one[STATE][:].copy()
        if number == 2:
            state[4, 0] = np.nan
        with store.writer(task=one.task, success=True) as writer:
            writer.extend({CAMERA: one[CAMERA][:], STATE: state}, stage=one.stage)
    bad = store[2].uuid
    words = ["train-reward", f"reward={kind}", f"store={store.path}", f"out={tmp_path / 'rm'}", "holdout=1", "steps=2"]
    code, _, errors = run_command(*words)
    assert code == 2
    assert f"episode {bad}, frame 4: {STATE}[0] is nan" in errors
    assert not (tmp_path / "rm").exists()


def test_most_episodes_unlabelled_is_said_and_counted(tmp_path, run_command):
    store = make_store(tmp_path / "s.zarr", episodes=8, frames=6)
    for one in list(store)[:5]:
        store.set_stages(one.uuid, np.full(one.length, -1))
    words = ["train-reward", f"store={store.path}", f"out={tmp_path / 'rm'}", "holdout=1", "steps=2", *TINY]
    code, text, errors = run_command(*words)
    assert code == 0, errors
    assert "warning: 5 of 8 episodes have no stage labels" in text
    assert "next: robo-rm eval-reward" in text
    assert f"model={tmp_path / 'rm'}" in text


def test_a_task_that_ends_before_the_last_stage_is_finished_where_nobody_said_how_it_went():
    """Imported episodes of two tasks with stages of their own and no outcome: each runs from 0 to 1."""
    episodes = [
        SimpleNamespace(stage=np.array(stage), success=None, task=task, uuid=task, length=4)
        for task, stage in (("a", [0, 0, 1, 1]), ("b", [2, 2, 3, 3]))
    ]
    priors = task_priors(episodes, 4)
    assert priors == {"a": [0.5, 0.5, 0, 0], "b": [0, 0, 0.5, 0.5]}
    labels = stored_labels(episodes[0], priors["a"])
    assert labels.complete.all()
    assert labels.progress.tolist() == [0, 0.25, 0.5, 0.75]


def test_depth_cameras_are_left_out_with_a_word_and_refused_by_name(tmp_path, run_command):
    plain = make_store(tmp_path / "plain.zarr", episodes=3, frames=6)
    depth = "observation.images.depth"
    features = {**plain.features, depth: {"shape": (24, 32, 1), "dtype": "uint16"}}
    store = DemoStore.create(tmp_path / "s.zarr", features, plain.fps, stages=plain.stages)
    for one in plain:
        with store.writer(task=one.task, success=True) as writer:
            frames = {CAMERA: one[CAMERA][:], STATE: one[STATE][:], depth: np.ones((one.length, 24, 32, 1), np.uint16)}
            writer.extend(frames, stage=one.stage)
    words = ["train-reward", f"store={store.path}", f"out={tmp_path / 'rm'}", "holdout=1", "steps=2", *TINY]
    code, _, errors = run_command(*words, "cameras=[depth]")
    assert code == 2
    assert f"{depth} has uint16 frames" in errors
    code, text, errors = run_command(*words)
    assert code == 0, errors
    assert "camera depth is left out: uint16 frames of shape (24, 32, 1) are no colour images" in text
