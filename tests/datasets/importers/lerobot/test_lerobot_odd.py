"""Odd features and episodes of LeRobot datasets: kept or left out by rule, said, and never all or nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from robo_core.errors import ImportSourceError, StoreWriteError
from robo_datasets import DemoStore
from robo_datasets.importers.lerobot.v2 import LeRobotV2Source
from robo_datasets.importers.lerobot.v3 import LeRobotV3Source
from robo_datasets.importers.run import import_source
from robo_datasets.store.shard import ShardWriter
from tests.datasets.lerobot_sets import CAMERA, as_v3, png, write_v21, write_video


def entry(dtype: str, shape: list[int]) -> dict:
    return {"dtype": dtype, "shape": shape, "names": None}


def short_second(path: Path, frames: np.ndarray, fps: float) -> None:
    write_video(path, frames[:-1] if path.stem.endswith("1") else frames, fps)


def run_import(run_command, root: Path, store: Path, *more: str) -> tuple[int, str, str]:
    return run_command("import", "lerobot", f"source={root}", f"store={store}", "workers=0", *more)


@pytest.mark.parametrize("version", [2, 3])
def test_features_that_no_store_can_keep_are_left_out_and_named(tmp_path, run_command, version):
    features = {
        "empty": entry("float32", [0]),
        "weird": entry("object", [1]),
        "observation/pose": entry("float32", [2]),
        "stage": entry("int64", [1]),
        "my key": entry("float32", [1]),
    }

    def columns(number: int, length: int) -> dict:
        return {
            "empty": pa.array([[]] * length, pa.list_(pa.float32())),
            "weird": ["x"] * length,
            "observation/pose": list(np.ones((length, 2), np.float32)),
            "stage": np.arange(length),
            "my key": np.ones(length, np.float32),
            "undeclared": np.ones(length),
        }

    root = write_v21(tmp_path / "set", [6], features=features, columns=columns)
    root = root if version == 2 else as_v3(root, tmp_path / "v3")
    code, said, err = run_import(run_command, root, tmp_path / "d.zarr", f"out={tmp_path / 'out'}")
    assert code == 0, err
    kept = {"observation.state", "action", CAMERA, "observation.pose", "source.stage", "my_key"}
    store = DemoStore.open(tmp_path / "d.zarr")
    assert set(store.schema) == kept
    assert store[0]["source.stage"][:].ravel().tolist() == list(range(6))
    notes = json.loads((tmp_path / "out/metrics.json").read_text())["notes"]
    for words in ("empty was left out", "weird was left out", "observation/pose is stored as observation.pose"):
        assert any(note.startswith(words) for note in notes)
        assert words in said
    assert any("'undeclared'" in note for note in notes)


def test_missing_numbers_are_nan_and_said_and_other_gaps_can_be_dropped(tmp_path, run_command):
    def columns(number: int, length: int) -> dict:
        rows = [[1.0, 2.0]] * length
        one, whole = list(rows), list(rows)
        one[3], whole[4] = [1.0, None], None
        return {
            "one": pa.array(one, pa.list_(pa.float32())),
            "whole": pa.array(whole, pa.list_(pa.float32())),
            "count": pa.array([None, *range(length - 1)], pa.int64()),
        }

    features = {"one": entry("float32", [2]), "whole": entry("float32", [2]), "count": entry("int64", [1])}
    root = write_v21(tmp_path / "set", [6], features=features, columns=columns)
    code, _, err = run_import(run_command, root, tmp_path / "d.zarr")
    assert (code, "column count has missing values" in err, "drop=[count]" in err) == (2, True, True)
    code, said, _ = run_import(run_command, root, tmp_path / "d.zarr", "drop=[count]")
    assert (code, "1 missing values of one became NaN" in said) == (0, True)
    store = DemoStore.open(tmp_path / "d.zarr")
    assert np.isnan(store[0]["one"][:]).sum() == 1
    assert np.isnan(store[0]["whole"][4]).all()


@pytest.mark.parametrize("version", [2, 3])
def test_a_bad_episode_is_left_out_with_its_reason(tmp_path, run_command, version):
    root = write_v21(tmp_path / "set", [6, 7, 8], make_video=short_second if version == 2 else write_video)
    if version == 3:
        root = as_v3(root, tmp_path / "v3")
        import pyarrow.parquet as pq

        file = root / "meta/episodes/chunk-000/file-000.parquet"
        rows = pq.read_table(file).to_pylist()
        rows[1]["length"] = rows[1]["dataset_to_index"] = 99
        pq.write_table(pa.Table.from_pylist(rows), file)
    code, _, err = run_import(run_command, root, tmp_path / "d.zarr")
    assert (code, (tmp_path / "d.zarr").exists()) == (2, False), err
    code, said, err = run_import(run_command, root, tmp_path / "d.zarr", "skip_bad=true", f"out={tmp_path / 'out'}")
    assert (code, "episode 1 was left out" in said) == (0, True), err
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["episodes_added"], list(metrics["bad"])) == (2, ["1"])
    assert run_import(run_command, root, tmp_path / "e.zarr", "episodes=[0,2]")[0] == 0
    assert len(DemoStore.open(tmp_path / "e.zarr")) == 2


def test_settings_of_the_choice_work_from_the_command_line(tmp_path, run_command):
    root = write_v21(tmp_path / "set", [10, 12])
    code, _, err = run_import(
        run_command,
        root,
        tmp_path / "d.zarr",
        "resample_fps=5",
        f"rename={{action: action.joints, {CAMERA}: observation.images.wrist}}",
        "episodes=1",
        "drop=[observation.state]",
    )
    assert code == 0, err
    store = DemoStore.open(tmp_path / "d.zarr")
    assert (len(store), store.fps, store[0].length) == (1, 5, 6)
    assert set(store.schema) == {"action.joints", "observation.images.wrist"}
    for wrong, words in (
        ("episodes=[4]", "no episode 4"),
        ("drop=[nothing]", "no feature 'nothing'"),
        ("rename=action", "rename=action"),
        ("rename={nothing: x}", "no feature 'nothing'"),
        ("resample_fps=0", "resample_fps=0"),
    ):
        code, _, err = run_import(run_command, root, tmp_path / "e.zarr", wrong)
        assert (code, words in err) == (2, True), err
    assert not (tmp_path / "e.zarr").exists()


def test_images_may_stand_in_files_of_the_data_set(tmp_path):
    root = write_v21(tmp_path / "set", [4], images=lambda n, length: [b""] * length)
    import pyarrow.parquet as pq

    (root / "images").mkdir()
    cells = []
    for row in range(4):
        (root / f"images/{row}.png").write_bytes(png(np.full((32, 48, 3), 40 * row, np.uint8)))
        cells.append({"bytes": None, "path": f"images/{row}.png"})
    file = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(file)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    place = table.column_names.index(CAMERA)
    pq.write_table(table.set_column(place, CAMERA, pa.array(cells, kind)), file)
    import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0)
    assert DemoStore.open(tmp_path / "d.zarr")[0][CAMERA][:].mean((1, 2, 3)).round().tolist() == [0, 40, 80, 120]


def test_a_full_disk_is_named_with_the_path_and_nothing_is_left(tmp_path, monkeypatch):
    root = write_v21(tmp_path / "set", [6])

    def full(self, frame) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardWriter, "add", full)
    with pytest.raises(StoreWriteError, match=r"frame 0 cannot be written to .*d\.zarr.*No space left on device"):
        import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0)
    with pytest.raises(StoreWriteError, match="No space left"):  # not the fault of the episode
        import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0, skip_bad=True)
    assert not (tmp_path / "d.zarr").exists()


def test_an_old_store_is_refused_with_what_to_do(make_store):
    from robo_core.errors import StoreError
    from robo_datasets.store.layout import GROUP_FILE

    path = make_store().path
    document = json.loads((path / GROUP_FILE).read_text())
    document["attributes"]["robo_demos"]["version"] = 1
    (path / GROUP_FILE).write_text(json.dumps(document))
    with pytest.raises(StoreError, match="version 1, this robo-rm reads 2: import its sources again"):
        DemoStore.open(path)


def test_v3_parts_that_start_late_in_their_file_and_files_that_start_late(tmp_path):
    from tests.datasets.lerobot_sets import number_of

    root = as_v3(write_v21(tmp_path / "set", [6, 7, 8]), tmp_path / "v3")
    import_source(LeRobotV3Source(root), tmp_path / "d.zarr", workers=0)
    store = DemoStore.open(tmp_path / "d.zarr")
    for episode in store:
        assert number_of(episode[CAMERA][:]).tolist() == list(range(episode.length))


def test_time_stamps_that_are_missing_are_named(tmp_path):
    root = write_v21(tmp_path / "set", [6], stamps=lambda length: np.where(np.arange(length) == 2, np.nan, 0.1))
    with pytest.raises(ImportSourceError, match="the timestamp of row 2 is missing"):
        import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0)


def test_more_bits_than_declared_are_rounded_and_said(tmp_path):
    root = write_v21(
        tmp_path / "set",
        [6],
        features={"pose": entry("float32", [2])},
        columns=lambda number, length: {"pose": list(np.full((length, 2), 0.1))},
    )
    source = LeRobotV2Source(root)
    import_source(source, tmp_path / "d.zarr", workers=0)
    assert DemoStore.open(tmp_path / "d.zarr")[0]["pose"][:].ravel().tolist() == [float(np.float32(0.1))] * 12
    assert any(note.startswith("pose holds") and "rounded" in note for note in source.notes)


def test_a_list_of_instructions_is_kept_where_frames_do_not_say_which(tmp_path):
    root = write_v21(tmp_path / "set", [6], tasks=["any"], listed={0: ["close", "shut"]})
    import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0)
    episode = DemoStore.open(tmp_path / "d.zarr")[0]
    assert (episode.task, episode.attributes) == ("close", {"tasks": ["close", "shut"]})


def test_a_disk_that_is_full_while_closing_too_leaves_nothing(tmp_path, monkeypatch):
    class FullFile:
        """A buffered file on a full disk: what was buffered fails again when it is closed."""

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            self.write(b"")

    root = write_v21(tmp_path / "set", [6])
    made = ShardWriter.__init__

    def on_a_full_disk(self, path: Path, feature) -> None:
        made(self, path, feature)
        self._file.close()
        self._file = FullFile()

    monkeypatch.setattr(ShardWriter, "__init__", on_a_full_disk)
    with pytest.raises(StoreWriteError, match=r"d\.zarr.*No space left on device"):
        import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0)
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize(
    "name", ["data/chunk-000/episode_000001.parquet", f"videos/chunk-000/{CAMERA}/episode_000001.mp4"]
)
def test_a_file_that_was_not_downloaded_is_called_what_it_is(tmp_path, run_command, name):
    root = write_v21(tmp_path / "set", [6, 7])
    (root / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12345\n")
    code, _, err = run_import(run_command, root, tmp_path / "d.zarr")
    assert code == 2
    assert f"{Path(name).name} is a Git LFS pointer" in err
    (root / name).write_bytes(b"")
    assert f"{Path(name).name} is empty (0 bytes)" in run_import(run_command, root, tmp_path / "d.zarr")[2]
    assert not (tmp_path / "d.zarr").exists()


def test_the_versions_that_are_read_are_named(tmp_path, run_command):
    root = write_v21(tmp_path / "set", [6])
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    assert "v2.0, v2.1 and v3.0 are read" in run_import(run_command, root, tmp_path / "d.zarr")[2]


class _Array2D(pa.ExtensionType):
    """As the library that LeRobot writes with keeps arrays, once it is loaded in the same process."""

    def __init__(self) -> None:
        super().__init__(pa.list_(pa.list_(pa.float32())), "tests.array2d")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> _Array2D:
        return cls()


def test_arrays_of_a_registered_type_are_read_as_the_lists_they_are(tmp_path):
    def columns(number: int, length: int) -> dict:
        lists = pa.array(np.arange(length * 4.0).reshape(length, 2, 2).tolist(), pa.list_(pa.list_(pa.float32())))
        return {"mat": pa.ExtensionArray.from_storage(_Array2D(), lists)}

    pa.register_extension_type(_Array2D())
    try:
        root = write_v21(tmp_path / "set", [6], features={"mat": entry("float32", [2, 2])}, columns=columns)
        import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0)
    finally:
        pa.unregister_extension_type("tests.array2d")
    rows = DemoStore.open(tmp_path / "d.zarr")[0]["mat"][:]
    assert np.array_equal(rows, np.arange(24.0).reshape(6, 2, 2))


@pytest.mark.parametrize("version", [2, 3])
def test_a_camera_folder_that_no_feature_names_is_told(tmp_path, version):
    source = write_v21(tmp_path / "set", [6, 6])
    kept = LeRobotV2Source(source).features.keys()
    if version == 3:
        source = as_v3(source, tmp_path / "v3")
    info = json.loads((source / "meta/info.json").read_text())
    camera = next(key for key, entry in info["features"].items() if entry["dtype"] == "video")
    del info["features"][camera]
    (source / "meta/info.json").write_text(json.dumps(info))
    found = (LeRobotV2Source if version == 2 else LeRobotV3Source)(source)
    assert found.features.keys() == kept - {camera}
    assert f"the videos of ['{camera}'] are not declared in meta/info.json and were left out" in found.notes
