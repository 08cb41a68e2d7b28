"""LeRobot v3.0 datasets of other origin: what LeRobot itself writes, and files that lie."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_demos import FEATURES, FRONT, add_episode, smooth_frames

from robo_core.errors import ImportSourceError
from robo_datasets import DemoStore
from robo_datasets.exporters.lerobot.exporter import export_lerobot
from robo_datasets.exporters.lerobot.layout import LeRobotSettings
from robo_datasets.exporters.lerobot.tables import names_table
from robo_datasets.importers.files import expand_pattern
from robo_datasets.importers.lerobot.v3 import LeRobotV3Source
from robo_datasets.importers.run import import_source

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"
VIDEO = f"videos/{FRONT}/chunk-000/file-000.mp4"


def bring_in(run_command: Any, source: Path, store: Path, *more: str) -> DemoStore:
    code, _, err = run_command("import", "lerobot", f"source={source}", f"store={store}", "workers=0", *more)
    assert code == 0, err
    return DemoStore.open(store)


@pytest.fixture(scope="module")
def written_by_lerobot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes recorded through LeRobot's own classes."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = tmp_path_factory.mktemp("lerobot") / "set"
    features = {
        FRONT: {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
        "observation.images.still": {"dtype": "image", "shape": (32, 48, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
        "note": {"dtype": "string", "shape": (1,), "names": None},
    }
    # LeRobot's own statistics warn about columns of bool.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _record(LeRobotDataset, root, features)
    return root


def _record(kind: Any, root: Path, features: dict[str, Any]) -> None:
    data = kind.create("local/own", 10, features, root=root, robot_type="so101")
    for number, length in enumerate((6, 9)):
        frames, stills = smooth_frames(length, 64, 96, number), smooth_frames(length, 32, 48, number + 7)
        for row in range(length):
            data.add_frame(
                {
                    FRONT: frames[row],
                    "observation.images.still": stills[row],
                    "observation.state": np.array([number, row], np.float32),
                    "action": np.array([row, 0.1], np.float32),
                    "next.success": np.array([number == 1 and row == length - 1]),
                    "next.done": np.array([row == length - 1]),
                    "note": "hello",
                    "task": f"task {number}",
                }
            )
        data.save_episode()
    data.finalize()


def test_what_lerobot_wrote_is_read(written_by_lerobot, tmp_path, run_command):
    store = bring_in(run_command, written_by_lerobot, tmp_path / "d.zarr")
    assert (len(store), store.fps, store.robot) == (2, 10, "so101")
    assert "note" not in store.schema
    assert [episode.task for episode in store] == ["task 0", "task 1"]
    assert [episode.success for episode in store] == [False, True]
    for number, episode in enumerate(store):
        np.testing.assert_array_equal(episode["observation.state"][:, 1], np.arange(episode.length))
        assert (episode["observation.state"][:, 0] == number).all()
        np.testing.assert_allclose(episode.timestamp, np.arange(episode.length) / 10, atol=1e-6)
        assert episode["next.done"][:].ravel().tolist() == [False] * (episode.length - 1) + [True]
        assert "terminated" not in episode.attributes
        stills = smooth_frames(episode.length, 32, 48, number + 7)
        assert np.abs(episode["observation.images.still"][:].astype(int) - stills).mean() < 3
        frames = smooth_frames(episode.length, 64, 96, number)
        assert np.abs(episode[FRONT][:].astype(int) - frames).mean() < 8


def test_cameras_and_size_may_be_chosen(written_by_lerobot, tmp_path, run_command):
    store = bring_in(run_command, written_by_lerobot, tmp_path / "d.zarr", "cameras=[front]", "size=[16,24]")
    assert (store.cameras, store[1][FRONT].shape) == ([FRONT], (9, 16, 24, 3))


def edit_rows(root: Path, edit: Callable[[list[dict[str, Any]]], Any]) -> None:
    table = pq.read_table(root / EPISODES)
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows), root / EPISODES)


def test_annotation_of_lerobots_tool_is_read_and_may_be_chosen(written_by_lerobot, tmp_path, run_command):
    root = tmp_path / "set"
    shutil.copytree(written_by_lerobot, root)

    def annotate(rows: list[dict[str, Any]]) -> None:
        for prefix, names in (("sparse_", ["all"]), ("dense_", ["reach", "lift"]), ("", ["all"])):
            for row in rows:
                cut = [0, *([3] if len(names) == 2 else []), row["length"]]
                row[f"{prefix}subtask_names"] = names
                row[f"{prefix}subtask_start_frames"] = cut[:-1]
                # The tool may end an annotation after the episode does.
                row[f"{prefix}subtask_end_frames"] = [*cut[1:-1], row["length"] + 4]

    edit_rows(root, annotate)
    fine = bring_in(run_command, root, tmp_path / "fine.zarr")
    assert fine.stages == ["reach", "lift"]
    assert [episode.stage.tolist() for episode in fine] == [[0] * 3 + [1] * 3, [0] * 3 + [1] * 6]
    assert bring_in(run_command, root, tmp_path / "coarse.zarr", "annotation=sparse").stages == ["all"]
    assert bring_in(run_command, root, tmp_path / "no.zarr", "annotation=none").stages == []

    def inclusive(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["dense_subtask_end_frames"] = [2, row["length"] - 1]

    edit_rows(root, inclusive)
    again = bring_in(run_command, root, tmp_path / "again.zarr")
    assert [episode.stage.tolist() for episode in again] == [[0] * 3 + [1] * 3, [0] * 3 + [1] * 6]


def test_success_that_was_never_said_stays_unknown_only_where_robo_rm_noted_it(tmp_path, run_command):
    store = DemoStore.create(tmp_path / "d.zarr", FEATURES, 10, ["reach", "place"])
    add_episode(store, success=None)
    export_lerobot(store, tmp_path / "set", workers=0)
    assert bring_in(run_command, tmp_path / "set", tmp_path / "back.zarr")[0].success is None
    assert bring_in(run_command, tmp_path / "set", tmp_path / "true.zarr", "success=true")[0].success is True


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    store = DemoStore.create(folder / "d.zarr", FEATURES, 10, ["reach", "place"])
    for seed in range(3):
        add_episode(store, seed=seed)
    export_lerobot(store, folder / "set", LeRobotSettings(crf=10), workers=0)
    return folder / "set"


def edit_info(root: Path, **values: Any) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, **values}))


def edit_feature(root: Path, key: str, **values: Any) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][key] |= values
    (root / "meta/info.json").write_text(json.dumps(info))


def set_in_row(root: Path, key: str, value: Any, number: int = 1) -> None:
    edit_rows(root, lambda rows: rows[number].update({key: value}))


def truncate(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def replace_column(root: Path, key: str, values: Any) -> None:
    table = pq.read_table(root / DATA)
    pq.write_table(table.set_column(table.column_names.index(key), key, values), root / DATA)


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no info": (lambda r: (r / "meta/info.json").unlink(), "info.json is missing"),
    "empty info": (lambda r: (r / "meta/info.json").write_text(""), "not JSON"),
    "info too deep": (lambda r: (r / "meta/info.json").write_text("[" * 200_000), "not JSON"),
    "wrong version": (lambda r: edit_info(r, codebase_version="v4.0"), "v4.0"),
    "no fps": (lambda r: (edit_info(r, fps="fast"), (r / "meta/robo_rm.json").unlink()), "fps is 'fast'"),
    "truncated data": (lambda r: truncate(r / DATA), "truncated"),
    "empty data": (lambda r: (r / DATA).write_bytes(b""), "is empty (0 bytes)"),
    "missing data": (lambda r: (r / DATA).unlink(), "missing"),
    "truncated video": (lambda r: truncate(r / VIDEO), "truncated"),
    "empty video": (lambda r: (r / VIDEO).write_bytes(b""), "is empty (0 bytes)"),
    "damage inside the video": (lambda r: spoil(r / VIDEO), VIDEO),
    "missing video": (lambda r: (r / VIDEO).unlink(), "missing"),
    "truncated episodes": (lambda r: truncate(r / EPISODES), "truncated"),
    "no episodes": (lambda r: (r / EPISODES).unlink(), "incomplete"),
    "empty episodes": (lambda r: edit_rows_to_none(r), "holds no episodes"),
    "an episode twice": (lambda r: set_in_row(r, "episode_index", 0), "twice"),
    "huge length": (
        lambda r: (set_in_row(r, "dataset_to_index", 10**15), set_in_row(r, "length", 10**15 - 12)),
        "ends at row 1000000000000000",
    ),
    "negative rows": (lambda r: set_in_row(r, "dataset_from_index", -5), "-5"),
    "late frames": (
        lambda r: set_in_row(r, f"videos/{FRONT}/from_timestamp", 1e6),
        "no frame at row 0 (1000000.0000 s)",
    ),
    "no time": (lambda r: set_in_row(r, f"videos/{FRONT}/from_timestamp", float("nan")), "nan"),
    "path out of the set": (lambda r: edit_info(r, data_path="../../{chunk_index}{file_index}"), "lies outside it"),
    "absolute path": (lambda r: edit_info(r, video_path="/etc/passwd"), "lies outside it"),
    "pattern that pads": (lambda r: edit_info(r, data_path="{chunk_index:>99999999999}"), "cannot be filled in"),
    "pattern that reaches": (lambda r: edit_info(r, data_path="{file_index.__class__}"), "cannot be filled in"),
    "huge shape": (lambda r: edit_feature(r, "action", shape=[10**6, 10**6, 10**6]), "larger than 1 GiB"),
    "other shape": (lambda r: edit_feature(r, "action", shape=[4]), "is a store of another schema"),
    "other image": (lambda r: edit_feature(r, FRONT, shape=[48, 64, 3]), "is a store of another schema"),
    "other type": (lambda r: replace_column(r, "action", pa.array(["x"] * 36)), "column action"),
    "missing values": (lambda r: replace_column(r, "action", pa.nulls(36, pa.list_(pa.float32()))), "missing values"),
    "missing column": (lambda r: pq.write_table(pq.read_table(r / DATA).drop(["action"]), r / DATA), "lacks"),
    "unknown subtask": (
        lambda r: replace_column(r, "subtask_index", pa.array([7] * 36)),
        "has no subtask 7",
    ),
    "subtasks of other form": (
        lambda r: pq.write_table(pa.table({"a": [1]}), r / "meta/subtasks.parquet"),
        "subtask_index and a name",
    ),
    "foreign record": (lambda r: (r / "meta/robo_rm.json").write_text('{"format": 99}'), "is not of format 1"),
}


def edit_rows_to_none(root: Path) -> None:
    pq.write_table(pq.read_table(root / EPISODES).slice(0, 0), root / EPISODES)


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line_and_the_store_stays_as_it_was(small, tmp_path, run_command, fault):
    damage, words = FAULTS[fault]
    root = tmp_path / "set"
    shutil.copytree(small, root)
    store = DemoStore.create(tmp_path / "d.zarr", FEATURES, 10, ["reach", "place"])
    add_episode(store, seed=9)
    before = store.content_hash()
    damage(root)
    code, _, err = run_command("import", "lerobot", f"source={root}", f"store={store.path}", "workers=0")
    lines = [line for line in err.strip().splitlines() if "robo-rm" in line]
    assert (code, len(lines), words in lines[-1] if lines else False) == (2, 1, True), err
    assert DemoStore.open(store.path).content_hash() == before


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [("action", [4], r"column action does not hold \[4\]"), (FRONT, [48, 64, 3], "24x32, .* is declared 48x64")],
)
def test_shapes_that_are_not_those_of_the_files_are_refused(small, tmp_path, key, shape, words):
    root = tmp_path / "set"
    shutil.copytree(small, root)
    edit_feature(root, key, shape=shape)
    with pytest.raises(ImportSourceError, match=words):
        import_source(LeRobotV3Source(root), tmp_path / "d.zarr", workers=0)
    assert not (tmp_path / "d.zarr").exists()


def test_a_data_set_without_the_annotation_asked_for_is_refused(written_by_lerobot):
    with pytest.raises(ImportSourceError, match="no dense annotation"):
        LeRobotV3Source(written_by_lerobot, annotation="dense")


def test_a_word_that_is_no_annotation_is_refused(small, tmp_path, run_command):
    words = (f"source={small}", f"store={tmp_path / 'd.zarr'}", "annotation=thick")
    code, _, err = run_command("import", "lerobot", *words)
    assert (code, "annotation=thick is not one of" in err) == (2, True)


def test_one_row_group_for_all_episodes_reads_the_same(small, tmp_path, run_command):
    root = tmp_path / "set"
    shutil.copytree(small, root)
    pq.write_table(pq.read_table(root / DATA), root / DATA)
    for one, two in zip(
        bring_in(run_command, small, tmp_path / "a.zarr"), bring_in(run_command, root, tmp_path / "b.zarr"), strict=True
    ):
        assert one["action"][:].tobytes() == two["action"][:].tobytes()
        assert one[FRONT][:].tobytes() == two[FRONT][:].tobytes()


def test_names_are_found_as_pandas_wrote_them(tmp_path):
    import pandas as pd

    pq.write_table(names_table(["b", "a"], "task_index"), tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert (list(frame.index), frame.loc["a"].task_index) == (["b", "a"], 1)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [("a/{n:03d}.x", "a/007.x"), ("{k}/{n}", "cam/7"), ("plain", "plain")],
)
def test_patterns_are_filled_in(tmp_path, pattern, wanted):
    assert expand_pattern(tmp_path, pattern, "info", n=7, k="cam") == tmp_path / wanted


@pytest.mark.parametrize(
    "pattern", ["{n!r}", "{0}", "{n[0]}", "{k:03d}", "{other}", "{{n}}", "..", "/x", "a/../../b", 3]
)
def test_other_patterns_are_refused(tmp_path, pattern):
    with pytest.raises(ImportSourceError):
        expand_pattern(tmp_path, pattern, "info", n=7, k="cam")
