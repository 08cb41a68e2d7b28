"""Folders of mp4 files with hand-marked stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_demos import smooth_frames

from robo_core.errors import ImportSourceError, LabelError
from robo_datasets import DemoStore
from robo_datasets.importers.files import counting_order
from robo_datasets.importers.keyframes.source import KeyframeSource
from robo_datasets.importers.options import plan_import
from robo_datasets.importers.run import import_source
from robo_datasets.video.writer import VideoWriter

HIGH, WRIST = "observation.images.high", "observation.images.wrist"
MARKS = [("reach", 2, 9), ("grasp", 9, 15), ("lift", 15, 19)]


def write_video(path: Path, frames: np.ndarray, fps: float = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, *frames.shape[1:3], fps, crf=8) as video:
        for frame in frames:
            video.add(frame)


def mark(folder: Path, marks: Any) -> None:
    entries = [{"anotation": name, "start_frame_id": start, "end_frame_id": end} for name, start, end in marks]
    (folder / "annotated_keyframes.json").write_text(json.dumps(entries))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two episodes of 20 frames, two cameras; the second ends before the last stage."""
    root = tmp_path / "table"
    for number, marks in ((2, MARKS), (10, MARKS[:2])):
        for camera, name in enumerate(("high", "wrist")):
            frames = smooth_frames(20, 48, 64 if camera else 80, seed=number + camera)
            write_video(root / f"episode_{number}" / f"{name}.mp4", frames)
        mark(root / f"episode_{number}", marks)
    (root / "task_instruction.json").write_text(json.dumps(["clear the table", "tidy up"]))
    return root


def bring_in(folder: Path, store: Path, **options: Any) -> DemoStore:
    source = KeyframeSource(folder, **options)
    import_source(source, store, plan_import(source, store), workers=0)
    return DemoStore.open(store)


def test_cameras_stages_task_and_outcome_are_read(folder, tmp_path):
    store = bring_in(folder, tmp_path / "demos.zarr")
    assert (store.fps, store.stages, store.cameras) == (20, ["reach", "grasp", "lift"], [HIGH, WRIST])
    first, second = store
    assert [tuple(segment[:3]) for segment in first.stages] == [(2, 9, 0), (9, 15, 1), (15, 19, 2)]
    assert (first.stage[:2] == -1).all()
    assert first.stage[19] == -1
    assert (first.success, second.success) == (None, False)
    assert (first.task, first.attributes["folder"], second.attributes["folder"]) == (
        "clear the table",
        "episode_2",
        "episode_10",
    )
    np.testing.assert_allclose(first.timestamp, np.arange(20) / 20, atol=1e-9)
    assert first[HIGH].shape == (20, 48, 80, 3)
    difference = np.abs(first[WRIST][:].astype(int) - smooth_frames(20, 48, 64, seed=3))
    assert difference.mean() < 5  # H.264 with halved colour planes on frames of strong colours; another frame is 60 off


def test_the_real_clean_table_goes_in(shared_data, tmp_path):
    store = bring_in(shared_data / "clean_table", tmp_path / "demos.zarr", size=(60, 80))
    episode = store[0]
    assert (len(store), episode.length, store.fps, len(store.cameras)) == (1, 1277, 30, 3)
    assert (episode.task, len(episode.attributes["instructions"])) == ("clean the table", 5)
    assert store.stages == [f"subtask{number}" for number in range(1, 17)]
    assert [segment[:2] for segment in episode.stages][:2] == [(8, 147), (147, 211)]
    assert (len(episode.stages), episode.stages[-1][:2]) == (16, (1178, 1263))
    assert (episode.stage[:8] == -1).all()
    assert (episode.stage[1263:] == -1).all()


def test_one_episode_folder_may_be_the_source(folder, tmp_path):
    store = bring_in(folder / "episode_2", tmp_path / "demos.zarr", cameras=["wrist"], size=(24, 32), task="go")
    assert (len(store), store.cameras, store[0].task) == (1, [WRIST], "go")
    assert store[0][WRIST].shape == (20, 24, 32, 3)


def test_the_same_command_adds_nothing(folder, tmp_path):
    store = bring_in(folder, tmp_path / "demos.zarr")
    again = bring_in(folder, tmp_path / "demos.zarr")
    assert (len(again), again.content_hash()) == (2, store.content_hash())


def test_the_command_imports_and_reports(folder, tmp_path, run_command):
    code, out, _ = run_command(
        "import", "keyframes", f"source={folder}", f"store={tmp_path / 'd.zarr'}", "workers=0", f"out={tmp_path / 'o'}"
    )
    assert (code, "2 episodes, 40 frames added" in out) == (0, True)
    assert json.loads((tmp_path / "o/metrics.json").read_text())["frames_added"] == 40


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def at_25_frames_a_second(folder: Path) -> None:
    for name in ("high", "wrist"):
        write_video(folder / f"episode_10/{name}.mp4", smooth_frames(20, 48, 80), fps=25)


def cut_three_frames(folder: Path) -> None:
    write_video(folder / "episode_10/high.mp4", smooth_frames(17, 48, 80))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: truncate(f / "episode_10/high.mp4"), "truncated"),
        (lambda f: (f / "episode_10/high.mp4").write_bytes(b""), "is empty (0 bytes)"),
        (lambda f: (f / "episode_10/high.mp4").unlink(), "has the cameras"),
        (lambda f: (f / "episode_10/annotated_keyframes.json").write_text("[{"), "not JSON"),
        (lambda f: (f / "episode_10/annotated_keyframes.json").write_text('{"a": 1}'), "list of keyframes"),
        (lambda f: (f / "episode_10/annotated_keyframes.json").write_text("[" * 100_000), "not JSON"),
        (lambda f: (f / "episode_10/annotated_keyframes.json").write_text('[{"anotation": "a"}]'), "start_frame_id"),
        (lambda f: mark(f / "episode_10", [("reach", 0, 10**12)]), "1000000000000"),
        (lambda f: mark(f / "episode_10", [("reach", 0, 9), ("lift", 8, 12)]), "begins at frame 8"),
        (lambda f: mark(f / "episode_10", [("reach", 0, 9), ("lift", 12, 15)]), "gap of 3 frames at frame 9"),
        (cut_three_frames, "high.mp4 has 17 frames in 0.850 s, wrist.mp4 has 20 in 1.000 s"),
        (lambda f: at_25_frames_a_second(f), "has 25 frames/s, most episodes have 20; fps=20 brings all"),
        (lambda f: (f / "task_instruction.json").write_text("3"), "list of instructions"),
    ],
)
def test_a_fault_is_one_clear_line_and_no_store_is_left(folder, tmp_path, run_command, damage, words):
    damage(folder)
    code, _, err = run_command("import", "keyframes", f"source={folder}", f"store={tmp_path / 'd.zarr'}", "workers=0")
    last = err.strip().splitlines()[-1]
    assert (code, words in last) == (2, True), err
    assert not (tmp_path / "d.zarr").exists()


def test_a_fault_leaves_an_existing_store_as_it_was(folder, tmp_path):
    store = bring_in(folder / "episode_2", tmp_path / "demos.zarr")
    truncate(folder / "episode_10/wrist.mp4")
    with pytest.raises(ImportSourceError, match="truncated"):
        bring_in(folder, tmp_path / "demos.zarr")
    assert DemoStore.open(tmp_path / "demos.zarr").content_hash() == store.content_hash()


def test_empty_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ImportSourceError, match="no folder with mp4"):
        KeyframeSource(tmp_path)
    with pytest.raises(ImportSourceError, match="there is no folder"):
        KeyframeSource(tmp_path / "nowhere")


def test_stages_that_the_store_does_not_know_are_refused(folder, tmp_path):
    bring_in(folder, tmp_path / "demos.zarr")
    mark(folder / "episode_10", [("juggle", 0, 20)])
    with pytest.raises(LabelError, match="juggle"):
        bring_in(folder, tmp_path / "demos.zarr")


def test_episodes_are_counted_as_people_count():
    assert sorted(["episode_10", "episode_2", "a", "episode_02b"], key=counting_order) == [
        "a",
        "episode_2",
        "episode_02b",
        "episode_10",
    ]
