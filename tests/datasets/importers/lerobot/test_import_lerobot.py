from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_demos import smooth_frames

from robo_core.errors import StoreError
from robo_datasets import DemoStore
from robo_datasets.doctor.examine import examine

CAMERA = "observation.images.cam"
LENGTHS = (7, 5, 6)


def write_video(path: Path, frames: np.ndarray, codec: str, fps: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {"crf": "5"} if codec == "libx264" else {"crf": "5", "preset": "12", "svtav1-params": "lp=1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def make_dataset(root: Path, codec: str = "libx264") -> Path:
    rng = np.random.default_rng(0)
    features = {
        "observation.state": {"dtype": "float32", "shape": [4], "names": None},
        "action": {"dtype": "float64", "shape": [4], "names": None},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        CAMERA: {"dtype": "video", "shape": [64, 80, 3], "names": ["height", "width", "channel"]},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
    }
    info = {
        "codebase_version": "v2.1",
        "robot_type": "testbot",
        "total_episodes": len(LENGTHS),
        "chunks_size": 2,
        "fps": 10,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "pick"}) + "\n")
    lines = [{"episode_index": i, "tasks": ["pick"], "length": length} for i, length in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for i, length in enumerate(LENGTHS):
        state = rng.normal(size=(length, 4)).astype(np.float32)
        state[0, 0] = np.nan
        table = pa.table(
            {
                "observation.state": list(state),
                "action": list(rng.normal(size=(length, 4))),
                "next.reward": rng.normal(size=length).astype(np.float32),
                "timestamp": (np.arange(length) / 10).astype(np.float32),
                "task_index": np.zeros(length, np.int64),
            }
        )
        path = root / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        video = root / f"videos/chunk-{i // 2:03d}/{CAMERA}/episode_{i:06d}.mp4"
        write_video(video, smooth_frames(length, 64, 80, seed=i), codec)
    return root


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("lerobot") / "set")


@pytest.fixture
def dataset(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "set"))


def stage_file(path: Path, entries: list[tuple[int, list[tuple[str, int, int]]]]) -> Path:
    document = [
        {
            "episode_index": number,
            "subtasks": [{"name": name, "start_frame": start, "end_frame": end} for name, start, end in segments],
        }
        for number, segments in entries
    ]
    path.write_text(json.dumps(document))
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a store but its derived index."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "index.json"
    }


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("workers", [0, 2])
def test_low_dimensional_data_is_bit_exact_and_frames_are_close(tmp_path, run_command, codec, workers):
    source = make_dataset(tmp_path / "set", codec)
    store = tmp_path / "demos.zarr"
    code, out, err = run_command("import", "lerobot", f"source={source}", f"store={store}", f"workers={workers}")
    assert (code, err.count("import: 3/3")) == (0, 1)
    assert "3 episodes, 18 frames added" in out
    opened = DemoStore.open(store)
    assert (opened.fps, opened.robot) == (10, "testbot")
    assert [episode.length for episode in opened] == list(LENGTHS)
    for i, episode in enumerate(opened):
        table = pq.read_table(source / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet")
        for key in ("observation.state", "action", "next.reward"):
            expected = np.array(table[key].to_pylist(), episode[key].dtype).reshape(episode[key].shape)
            assert episode[key][:].tobytes() == expected.tobytes()
        np.testing.assert_array_equal(episode.timestamp, table["timestamp"].to_numpy().astype(float))
        frames = smooth_frames(LENGTHS[i], 64, 80, seed=i)
        assert np.abs(episode[CAMERA][:].astype(int) - frames).mean() < 4
        assert (episode.task, episode.success, episode.source["episode"]) == ("pick", None, i)
        assert (episode.stage == -1).all()
        episode.verify()


def test_the_same_command_skips_what_is_there_and_resumes(dataset, tmp_path, run_command):
    store = tmp_path / "demos.zarr"
    words = ("import", "lerobot", f"source={dataset}", f"store={store}", "workers=0")
    assert run_command(*words)[0] == 0
    opened = DemoStore.open(store)
    uuids = opened.uuids
    opened.remove([uuids[1]])
    code, out, _ = run_command(*words)
    assert code == 0
    assert "1 episodes, 5 frames added" in out
    assert "2 were there already" in out
    assert DemoStore.open(store).uuids == uuids  # in the source's order, under the same names
    before = snapshot(store)
    assert "0 episodes" in run_command(*words)[1]
    assert snapshot(store) == before


def test_a_staging_folder_left_by_a_killed_import_is_taken_over(dataset, tmp_path, run_command):
    store = tmp_path / "demos.zarr"
    words = ("import", "lerobot", f"source={dataset}", f"store={store}", "workers=0")
    assert run_command(*words)[0] == 0
    opened = DemoStore.open(store)
    uuid = opened.uuids[2]
    opened.remove([uuid])
    left = store / ".staging" / uuid / "action"
    left.mkdir(parents=True)
    (left / "c.0.0").write_bytes(b"half")
    assert run_command(*words)[0] == 0
    assert uuid in DemoStore.open(store)


def test_stages_and_partial_episodes(dataset, tmp_path, run_command):
    file = stage_file(tmp_path / "s.json", [(0, [("reach", 0, 3), ("put", 3, 7)]), (2, [("reach", 0, 6)])])
    store = tmp_path / "demos.zarr"
    assert run_command("import", "lerobot", f"source={dataset}", f"store={store}", f"stages={file}")[0] == 0
    opened = DemoStore.open(store)
    assert opened.stages == ["reach", "put"]
    assert [episode.stage.tolist() for episode in opened] == [[0] * 3 + [1] * 4, [-1] * 5, [0] * 6]
    assert [episode.success for episode in opened] == [None, None, False]


@pytest.mark.parametrize(("word", "expected"), [("true", True), ("false", False), ("unknown", None)])
def test_success_as_told(dataset, tmp_path, run_command, word, expected):
    store = tmp_path / "demos.zarr"
    code = run_command("import", "lerobot", f"source={dataset}", f"store={store}", f"success={word}", "workers=0")[0]
    assert code == 0
    assert {episode.success for episode in DemoStore.open(store)} == {expected}


def test_cameras_and_size(dataset, tmp_path, run_command):
    store = tmp_path / "small.zarr"
    words = ("import", "lerobot", f"source={dataset}", "workers=0")
    assert run_command(*words, f"store={store}", "size=[32,40]", "cameras=[cam]")[0] == 0
    assert DemoStore.open(store)[0][CAMERA].shape == (7, 32, 40, 3)
    assert run_command(*words, f"store={tmp_path / 'blind.zarr'}", "cameras=[]")[0] == 0
    assert DemoStore.open(tmp_path / "blind.zarr").cameras == []
    code, _, err = run_command(*words, f"store={tmp_path / 'x.zarr'}", "cameras=[wrist]")
    assert code == 2
    assert "no camera 'wrist'" in err


def truncate(name: str):
    def damage(root: Path, _: Path) -> None:
        path = root / name
        os.truncate(path, path.stat().st_size // 2)

    return damage


def cut_video_frames(root: Path, _: Path) -> None:
    """A whole mp4 that has one frame too few."""
    write_video(root / VIDEO_1, smooth_frames(4, 64, 80), "libx264")


def damage_video_inside(root: Path, _: Path) -> None:
    """The header promises all frames; the data behind them is gone."""
    path = root / VIDEO_1
    raw = bytearray(path.read_bytes())
    size = int.from_bytes(raw[raw.index(b"mdat") - 4 : raw.index(b"mdat")], "big")
    place = raw.index(b"mdat") + size // 2
    raw[place : place + size // 4] = bytes(size // 4)
    path.write_bytes(bytes(raw))


def edit_info(**changes):
    def damage(root: Path, _: Path) -> None:
        path = root / "meta/info.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def drop_column(root: Path, _: Path) -> None:
    path = root / DATA_1
    pq.write_table(pq.read_table(path).drop_columns(["action"]), path)


def ragged_column(root: Path, _: Path) -> None:
    path = root / DATA_1
    table = pq.read_table(path)
    rows = table["action"].to_pylist()
    rows[0], rows[1] = rows[0][:3], rows[1] + [0.0]
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", pa.array(rows)), path)


def objects_for_numbers(root: Path, _: Path) -> None:
    path = root / DATA_1
    table = pq.read_table(path)
    texts = pa.array(["x"] * table.num_rows)
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", texts), path)


VIDEO_1 = f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
DATA_1 = "data/chunk-000/episode_000001.parquet"
FAULTS = {
    "truncated mp4": (truncate(VIDEO_1), "episode_000001.mp4"),
    "empty mp4": (lambda root, _: os.truncate(root / VIDEO_1, 0), "episode_000001.mp4"),
    "mp4 with a frame too few": (cut_video_frames, "episode_000001.mp4"),
    "mp4 damaged inside": (damage_video_inside, "episode_000001.mp4"),
    "missing mp4": (lambda root, _: (root / VIDEO_1).unlink(), "episode_000001.mp4"),
    "truncated parquet": (truncate(DATA_1), "episode_000001.parquet"),
    "missing parquet": (lambda root, _: (root / DATA_1).unlink(), "episode_000001.parquet"),
    "missing column": (drop_column, "action"),
    "ragged column": (ragged_column, "action"),
    "text for numbers": (objects_for_numbers, "action"),
    "truncated info": (truncate("meta/info.json"), "info.json"),
    "no info": (lambda root, _: (root / "meta/info.json").unlink(), "info.json"),
    "no source": (lambda root, _: shutil.rmtree(root), "no folder"),
    "truncated episode list": (truncate("meta/episodes.jsonl"), "episodes.jsonl"),
    "another version": (edit_info(codebase_version="v9.9"), "v9.9"),
    "path out of the dataset": (edit_info(data_path="../../etc/{episode_index}.parquet"), "outside"),
    "enormous shape": (
        edit_info(features={"action": {"dtype": "float32", "shape": [10**7, 10**7]}}),
        "action",
    ),
    "wrong shape": (edit_info(features={"action": {"dtype": "float32", "shape": [9]}}), "action"),
    "unknown dtype": (edit_info(features={"action": {"dtype": "object", "shape": [4]}}), "object"),
    "no frame rate": (edit_info(fps=None), "fps"),
}
ANNOTATION_FAULTS = {
    "unknown episode": ([(9, [("a", 0, 5)])], "episode 9"),
    "gap": ([(1, [("a", 0, 2), ("b", 3, 5)])], "gap of 1 frames at frame 2"),
    "gap at the start": ([(1, [("a", 1, 5)])], "gap of 1 frames at frame 0"),
    "gap at the end": ([(1, [("a", 0, 4)])], "gap of 1 frames at frame 4"),
    "overlap": ([(1, [("a", 0, 3), ("b", 2, 5)])], "begins at frame 2"),
    "too long": ([(1, [("a", 0, 6)])], "0 to 6"),
    "backwards": ([(1, [("a", 3, 1)])], "3 to 1"),
    "twice": ([(1, [("a", 0, 5)]), (1, [("a", 0, 5)])], "twice"),
}


def expect_one_line(result: tuple[int, str, str], message: str) -> None:
    code, _, err = result
    lines = [line for line in err.splitlines() if not line.startswith(("check:", "import:"))]
    assert code == 2, err
    assert len(lines) == 1, err
    assert message in lines[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_source_gives_one_line_and_leaves_no_store(dataset, tmp_path, run_command, fault):
    damage, message = FAULTS[fault]
    damage(dataset, tmp_path)
    store = tmp_path / "demos.zarr"
    expect_one_line(run_command("import", "lerobot", f"source={dataset}", f"store={store}", "workers=0"), message)
    assert not store.exists()


@pytest.mark.parametrize("fault", ["truncated mp4", "mp4 damaged inside"])
def test_ffmpeg_adds_nothing_where_another_library_lets_it_print(dataset, tmp_path, run_command, fault):
    damage, message = FAULTS[fault]
    damage(dataset, tmp_path)
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.INFO)
    words = ("import", "lerobot", f"source={dataset}", f"store={tmp_path / 'demos.zarr'}", "workers=0")
    expect_one_line(run_command(*words), message)


@pytest.mark.parametrize("fault", ["mp4 damaged inside", "ragged column"])
def test_a_fault_met_halfway_leaves_a_store_as_it_was(dataset, pristine, tmp_path, run_command, fault):
    store = tmp_path / "demos.zarr"
    # The same data under another name counts as another source, so that the store already holds episodes.
    other = Path(shutil.copytree(pristine, tmp_path / "other"))
    edit_info(robot_type="other")(other, tmp_path)
    assert run_command("import", "lerobot", f"source={other}", f"store={store}", "workers=0")[0] == 0
    before = snapshot(store)
    damage, message = FAULTS[fault]
    damage(dataset, tmp_path)
    expect_one_line(run_command("import", "lerobot", f"source={dataset}", f"store={store}", "workers=2"), message)
    assert snapshot(store) == before


@pytest.mark.parametrize("fault", ANNOTATION_FAULTS)
def test_faulty_annotation_gives_one_line_and_no_store(dataset, tmp_path, run_command, fault):
    entries, message = ANNOTATION_FAULTS[fault]
    file = stage_file(tmp_path / "s.json", entries)
    store = tmp_path / "demos.zarr"
    result = run_command("import", "lerobot", f"source={dataset}", f"store={store}", f"stages={file}")
    expect_one_line(result, message)
    assert not store.exists()


def test_an_unknown_stage_is_named(dataset, tmp_path, run_command):
    file = stage_file(tmp_path / "s.json", [(1, [("reech", 0, 5)])])
    store = tmp_path / "demos.zarr"
    words = ("import", "lerobot", f"source={dataset}", f"store={store}", f"stages={file}")
    expect_one_line(run_command(*words, "stage_names=[reach,put]"), "episode 1, frame 0: unknown stage 'reech'")
    assert not store.exists()


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '[{"episode_index": "x", "subtasks": []}]', "[" * 100000])
def test_annotation_that_is_no_annotation(dataset, tmp_path, run_command, text):
    (tmp_path / "s.json").write_text(text)
    store = tmp_path / "demos.zarr"
    result = run_command("import", "lerobot", f"source={dataset}", f"store={store}", f"stages={tmp_path / 's.json'}")
    expect_one_line(result, "s.json")


def test_a_store_of_another_schema_is_refused(dataset, tmp_path, run_command):
    store = tmp_path / "demos.zarr"
    DemoStore.create(store, {"action": {"shape": (2,), "dtype": "float32"}}, fps=10)
    before = snapshot(store)
    expect_one_line(run_command("import", "lerobot", f"source={dataset}", f"store={store}"), "another schema")
    assert snapshot(store) == before


def test_real_recordings_go_in(shared_data, tmp_path, run_command):
    source = tmp_path / "g1"
    real = shared_data / "g1_pick_bottle"
    shutil.copytree(real / "meta", source / "meta")
    lines = (real / "meta/episodes.jsonl").read_text().splitlines()[:2]
    (source / "meta/episodes.jsonl").write_text("\n".join(lines))
    edit_info(total_episodes=2)(source, tmp_path)
    for folder in ("data", "videos"):
        (source / folder).symlink_to(real / folder)
    annotation = [entry for entry in json.loads((real / "subtasks.json").read_text()) if entry["episode_index"] < 2]
    (tmp_path / "s.json").write_text(json.dumps(annotation))
    store = tmp_path / "demos.zarr"
    code, _, err = run_command(
        "import", "lerobot", f"source={source}", f"store={store}", f"stages={tmp_path / 's.json'}", "size=[120,160]"
    )
    assert code == 0, err
    opened = DemoStore.open(store)
    assert [episode.length for episode in opened] == [393, 343]
    assert [len(episode.stages) for episode in opened] == [4, 4]
    for i, episode in enumerate(opened):
        table = pq.read_table(real / f"data/chunk-000/episode_{i:06d}.parquet")
        for key in ("observation.state", "action"):
            assert episode[key][:].tobytes() == np.array(table[key].to_pylist(), np.float32).tobytes()


def test_random_damage_never_gives_a_traceback_or_half_a_store(dataset, tmp_path, run_command):
    rng = np.random.default_rng(0)
    files = sorted(path for path in dataset.rglob("*") if path.is_file())
    codes = []
    for number in range(54):
        path = files[number % len(files)]
        raw = path.read_bytes()
        place = int(rng.integers(len(raw)))
        noise = rng.integers(0, 256, rng.integers(1, 30), dtype=np.uint8).tobytes()
        path.write_bytes(raw[:place] if number % 2 else raw[:place] + noise + raw[place + len(noise) :])
        store = tmp_path / f"{number}.zarr"
        result = run_command("import", "lerobot", f"source={dataset}", f"store={store}", "workers=0")
        path.write_bytes(raw)
        codes.append(result[0])
        if result[0] == 0:  # what a video codec conceals cannot be told; what was read is whole
            assert len(DemoStore.open(store)) == len(LENGTHS)
        else:
            expect_one_line(result, str(path.name) if path.suffix in (".mp4", ".parquet") else "")
            assert not store.exists()
    assert codes.count(2) > 40


def test_success_is_read_where_it_was_recorded(dataset, tmp_path, run_command):
    info = json.loads((dataset / "meta/info.json").read_text())
    info["features"]["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
    (dataset / "meta/info.json").write_text(json.dumps(info))
    for i, length in enumerate(LENGTHS):
        path = dataset / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet"
        reached = [False] * (length - 1) + [i != 1]
        pq.write_table(pq.read_table(path).append_column("next.success", pa.array(reached)), path)
    assert run_command("import", "lerobot", f"source={dataset}", f"store={tmp_path / 'a.zarr'}")[0] == 0
    store = DemoStore.open(tmp_path / "a.zarr")
    assert [episode.success for episode in store] == [True, False, True]
    assert store[1]["next.success"][:].sum() == 0
    path = dataset / "data/chunk-000/episode_000001.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    code, _, said = run_command("import", "lerobot", f"source={dataset}", f"store={tmp_path / 'b.zarr'}")
    assert (code, "episode_000001.parquet" in said, (tmp_path / "b.zarr").exists()) == (2, True, False)


def test_other_stages_reach_episodes_that_are_there_only_when_asked_to(dataset, tmp_path, run_command):
    words = ["import", "lerobot", f"source={dataset}", f"store={tmp_path / 'a.zarr'}"]
    first = stage_file(tmp_path / "1.json", [(0, [("reach", 0, 3), ("grasp", 3, 7)]), (1, [("reach", 0, 5)])])
    other = stage_file(tmp_path / "2.json", [(0, [("reach", 0, 5), ("grasp", 5, 7)]), (1, [("reach", 0, 5)])])
    assert run_command(*words, f"stages={first}")[0] == 0
    _, said, _ = run_command(*words, f"stages={other}")
    assert "the store says otherwise than this command (stages of 1); relabel=true replaces" in said
    assert DemoStore.open(tmp_path / "a.zarr")[0].stage.tolist() == [0] * 3 + [1] * 4
    _, said, _ = run_command(*words, f"stages={other}", "relabel=true", f"out={tmp_path / 'out'}")
    assert "1 of these were relabelled" in said
    assert json.loads((tmp_path / "out/metrics.json").read_text())["episodes_relabelled"] == 1
    store = DemoStore.open(tmp_path / "a.zarr")
    assert store[0].stage.tolist() == [0] * 5 + [1] * 2
    assert store[2].stage.tolist() == [-1] * 6
    assert len(os.listdir(store.path / "annotations" / store.uuids[0])) == 1
    _, said, _ = run_command(*words, f"stages={other}", "relabel=true")
    assert "relabelled" not in said
    assert run_command(*words, f"stages={other}", "relabel=true", "success=false")[0] == 0
    assert [episode.success for episode in DemoStore.open(store.path)] == [False] * 3
    unknown = stage_file(tmp_path / "3.json", [(0, [("fly", 0, 7)])])
    code, _, said = run_command(*words, f"stages={unknown}", "relabel=true")
    assert (code, "unknown stage 'fly'" in said) == (2, True)


def test_a_store_without_stages_takes_those_of_its_first_annotation(dataset, tmp_path, run_command):
    words = ["import", "lerobot", f"source={dataset}", f"store={tmp_path / 'a.zarr'}"]
    assert run_command(*words)[0] == 0
    before = (tmp_path / "a.zarr/zarr.json").read_bytes()
    stages = stage_file(tmp_path / "1.json", [(0, [("reach", 0, 3), ("grasp", 3, 7)]), (1, [("reach", 0, 5)])])
    _, said, _ = run_command(*words, f"stages={stages}")
    assert "(stages of 2" in said
    assert (tmp_path / "a.zarr/zarr.json").read_bytes() == before
    assert run_command(*words, f"stages={stages}", "relabel=true")[0] == 0
    store = DemoStore.open(tmp_path / "a.zarr")
    assert store.stages == ["reach", "grasp"]
    assert [episode.stage.tolist() for episode in store] == [[0] * 3 + [1] * 4, [0] * 5, [-1] * 6]
    assert [episode.success for episode in store] == [None, False, None]
    assert not [finding for finding in examine(store.path).findings if finding.check in ("store", "annotations")]
    with pytest.raises(StoreError, match="cannot become"):
        store.name_stages(["fly"])


def test_a_failed_import_takes_back_the_names_of_stages_too(dataset, pristine, tmp_path, run_command):
    path = tmp_path / "a.zarr"
    other = shutil.copytree(pristine, tmp_path / "other")
    info = json.loads((other / "meta/info.json").read_text())
    (other / "meta/info.json").write_text(json.dumps({**info, "note": "another dataset"}))
    assert run_command("import", "lerobot", f"source={other}", f"store={path}", "workers=0")[0] == 0
    before = snapshot(path)
    video = dataset / f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
    raw = bytearray(video.read_bytes())
    raw[len(raw) // 3 : len(raw) // 2] = bytes(len(raw) // 2 - len(raw) // 3)
    video.write_bytes(raw)
    stages = stage_file(tmp_path / "1.json", [(0, [("reach", 0, 7)])])
    words = (f"source={dataset}", f"store={path}", f"stages={stages}", "workers=0")
    assert run_command("import", "lerobot", *words)[0] == 2
    assert snapshot(path) == before
