"""Stores written as LeRobot v3.0 datasets: what LeRobot sees, and what comes back."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_demos import smooth_frames

from robo_core.errors import ConfigError, StoreError
from robo_datasets import DemoStore
from robo_datasets.exporters.jobs import group_episodes
from robo_datasets.exporters.lerobot.exporter import export_lerobot
from robo_datasets.exporters.lerobot.layout import LeRobotSettings
from robo_datasets.exporters.lerobot.metadata import stage_proportions
from robo_datasets.exporters.lerobot.statistics import PixelCounts, joined_statistics, row_statistics
from robo_datasets.importers.lerobot.v3_meta import names_by_number
from robo_datasets.video.decoder import opened_video, video_header
from robo_datasets.video.writer import VideoWriter
from robo_policies.cloning.lerobot_versions import from_lerobot

FRONT, GREY, DEPTH = "observation.images.front", "observation.images.grey", "observation.depth"
FEATURES: dict[str, dict[str, Any]] = {
    FRONT: {"shape": (48, 64, 3), "dtype": "uint8"},
    GREY: {"shape": (48, 64, 1), "dtype": "uint8", "codec": "lossless"},
    DEPTH: {"shape": (6, 8, 1), "dtype": "uint16"},
    "observation.state": {"shape": (3,), "dtype": "float32", "names": ["x", "y", "z"]},
    "observation.pose": {"shape": (4, 4), "dtype": "float64"},
    "action": {"shape": (3,), "dtype": "float32"},
    "next.reward": {"shape": (1,), "dtype": "float32"},
    "gripper_open": {"shape": (), "dtype": "bool"},
    "ticks": {"shape": (2,), "dtype": "int64"},
}
STAGES = ["reach", "grasp", "lift", "never"]
LENGTHS = (9, 14, 7, 11)


def arrays(length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(length, 3)).astype(np.float32)
    # Values that a careless conversion changes.
    state[0] = [np.float32(1e-42), -0.0, 1 + np.finfo(np.float32).eps]
    return {
        FRONT: smooth_frames(length, 48, 64, seed),
        GREY: smooth_frames(length, 48, 64, seed + 50)[..., :1],
        DEPTH: rng.integers(0, 65536, (length, 6, 8, 1)).astype(np.uint16),
        "observation.state": state,
        "observation.pose": rng.normal(size=(length, 4, 4)),
        "action": np.roll(state, 1, 0),
        "next.reward": rng.normal(size=(length, 1)).astype(np.float32),
        "gripper_open": rng.random(length) < 0.5,
        "ticks": rng.integers(-(2**62), 2**62, (length, 2)),
    }


def make(path: Path, plain: bool = False) -> DemoStore:
    store = DemoStore.create(
        path, FEATURES, 10, STAGES, robot="so101", contract_hash="abc", contract={"robot": "so101"}
    )
    outcomes = [(True, False), (False, True), (False, False), (True, True)]
    for number, length in enumerate(LENGTHS):
        data = arrays(length, number)
        stage = np.minimum(np.arange(length) * 3 // length, 2)
        if number == 1:
            stage = np.where(np.arange(length) < 3, -1, np.where(np.arange(length) < 6, 1, 0))
        if number == 2:
            stage = np.full(length, -1)
        terminated, truncated = outcomes[number]
        attributes = {"seed": number, "terminated": terminated, "truncated": truncated}
        with store.writer(
            task=f"task {number % 2}",
            success=[True, False, None, True][number],
            source={"kind": "test"},
            attributes=attributes,
        ) as episode:
            for row in range(length):
                frame = {key: value[row] for key, value in data.items()}
                time = 100.5 + row / 10 + 0.001 * (row % 3)
                episode.add(frame, time, int(stage[row]), receive_timestamp=None if plain else time + 0.25)
    return store


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return make(tmp_path_factory.mktemp("original") / "demos.zarr")


@pytest.fixture(scope="module")
def exported(original: DemoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "dataset"
    export_lerobot(original, target, workers=0)
    return target


def bring_back(run_command: Any, source: Path, store: Path, *more: str) -> DemoStore:
    code, _, err = run_command("import", "lerobot", f"source={source}", f"store={store}", "workers=0", *more)
    assert code == 0, err
    return DemoStore.open(store)


def assert_same(first: DemoStore, second: DemoStore) -> None:
    """Everything but the pixels of video."""
    assert first.contract == second.contract
    assert (first.fps, first.stages, first.robot, first.contract_hash) == (
        second.fps,
        second.stages,
        second.robot,
        second.contract_hash,
    )
    assert first.schema == second.schema
    for one, two in zip(first, second, strict=True):
        for key, feature in first.schema.items():
            if feature.dtype == "uint8":
                continue
            assert one[key][:].tobytes() == two[key][:].tobytes(), key
        assert one.timestamp.tobytes() == two.timestamp.tobytes()
        np.testing.assert_array_equal(one.receive_timestamp, two.receive_timestamp)
        np.testing.assert_array_equal(one.stage, two.stage)
        assert (one.task, one.success, one.attributes) == (two.task, two.success, two.attributes)


def test_a_store_comes_back_as_it_was(original, exported, tmp_path, run_command):
    back = bring_back(run_command, exported, tmp_path / "back.zarr")
    assert_same(original, back)
    for one, two in zip(original, back, strict=True):
        for key in (FRONT, GREY):
            difference = np.abs(one[key][:].astype(int) - two[key][:])
            assert difference.mean() < 6, key  # another frame is about 60 off


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (LeRobotSettings(), 6),
        (LeRobotSettings(pixel_format="yuv444p", crf=5), 2),
        (LeRobotSettings(images="av1"), 6),
        (LeRobotSettings(images="png"), 0),
    ],
    ids=["h264", "h264 444", "av1", "png"],
)
def test_every_way_of_writing_frames_keeps_its_tolerance(tmp_path, run_command, settings, tolerance):
    store = DemoStore.create(tmp_path / "d.zarr", {FRONT: {**FEATURES[FRONT], "shape": (64, 96, 3)}}, 10)
    with store.writer() as episode:
        episode.extend({FRONT: smooth_frames(8, 64, 96)})
    target = tmp_path / "out"
    export_lerobot(store, target, settings, workers=0)
    if settings.images == "png":
        back = bring_back(run_command, target, tmp_path / "back.zarr", "codec=lossless")
        # The record of the original says JPEG; what is compared here is what LeRobot would read.
        table = pq.read_table(target / "data/chunk-000/file-000.parquet")
        import cv2

        frames = [
            cv2.imdecode(np.frombuffer(cell["bytes"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            for cell in table[FRONT].to_pylist()
        ]
        assert back[0].length == 8
    else:
        video = target / f"videos/{FRONT}/chunk-000/file-000.mp4"
        with opened_video(video) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in itertools.islice(container.decode(video=0), 8)]
    difference = np.abs(np.stack(frames).astype(int) - store[0][FRONT][:])
    assert difference.mean() <= tolerance
    assert (difference.max() == 0) == (tolerance == 0)


def test_lerobot_opens_it_and_sees_the_same_numbers(original, exported):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("local/test", root=exported, delta_timestamps={"action": [0, 0.1, 0.2]})
    assert (data.num_episodes, data.num_frames, data.fps) == (4, sum(LENGTHS), 10)
    table = data.hf_dataset.with_format(None)
    starts = np.cumsum([0, *LENGTHS])
    subtasks = names_by_number(exported / "meta/subtasks.parquet", "subtask_index")
    for number, episode in enumerate(original):
        rows = table[int(starts[number]) : int(starts[number + 1])]
        for key in ("observation.state", "observation.pose", "action", "next.reward", "ticks", "gripper_open", DEPTH):
            wanted = episode[key][:]
            found = np.asarray(rows[key], wanted.dtype)
            assert found.reshape(wanted.shape).tobytes() == wanted.tobytes(), key
        assert np.asarray(rows["next.done"]).tolist() == [False] * (episode.length - 1) + [number != 2]
    for index in (0, 8, 9, 30, sum(LENGTHS) - 1):
        number = int(np.searchsorted(starts, index, side="right")) - 1
        episode, row = original[number], index - int(starts[number])
        sample = data[index]
        assert sample["task"] == episode.task
        # LeRobot 0.4.4 puts the name into its items, 0.6 the number alone.
        subtask = sample["subtask"] if "subtask" in sample else subtasks[int(sample["subtask_index"])]
        assert subtask == ("" if episode.stage[row] < 0 else STAGES[episode.stage[row]])
        assert sample["action"].shape == (3, 3)
        image = sample[FRONT].numpy().transpose(1, 2, 0) * 255
        assert np.abs(image - episode[FRONT][row]).mean() < 6


def test_lerobot_trains_a_policy_on_it(exported):
    # A process of its own: LeRobot prepares the global state of torch and of its loggers.
    program = f"""
        import torch
        from lerobot.configs.types import FeatureType
        from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
        from lerobot.policies.act.configuration_act import ACTConfig
        from lerobot.policies.act.modeling_act import ACTPolicy
        from lerobot.policies.factory import make_pre_post_processors

        from robo_policies.cloning.lerobot_versions import from_lerobot

        torch.manual_seed(0)
        meta = LeRobotDatasetMetadata("local/test", root={str(exported)!r})
        features = from_lerobot("dataset_to_policy_features")(meta.features)
        inputs = {{key: features[key] for key in ("{FRONT}", "observation.state")}}
        config = ACTConfig(input_features=inputs, output_features={{"action": features["action"]}}, chunk_size=4,
                           n_action_steps=4, dim_model=32, n_heads=2, dim_feedforward=32, n_encoder_layers=1,
                           use_vae=False, pretrained_backbone_weights=None, device="cpu")
        policy = ACTPolicy(config)
        before, _ = make_pre_post_processors(config, dataset_stats=meta.stats)
        data = LeRobotDataset("local/test", root={str(exported)!r}, delta_timestamps={{"action": [0, .1, .2, .3]}})
        optimizer = torch.optim.AdamW(policy.parameters(), 1e-3)
        losses = []
        for batch in [*torch.utils.data.DataLoader(data, 20, shuffle=True)] * 4:
            loss, _ = policy(before(batch))
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0], losses
        print("trained")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.stdout.strip().endswith("trained"), done.stderr[-2000:]


def test_sarm_of_lerobot_finds_the_same_stages_and_progress(original, exported):
    find_stage_and_tau = from_lerobot("sarm_utils").find_stage_and_tau
    shares = json.loads((exported / "meta/temporal_proportions_dense.json").read_text())
    assert list(shares) == STAGES
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == stage_proportions(original)
    rows = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert rows[2]["sparse_subtask_names"] is None
    for number in (0, 1, 3):
        row, episode = rows[number], original[number]
        columns = [row[f"dense_subtask_{name}"] for name in ("names", "start_frames", "end_frames")]
        starts = set(columns[1])
        for frame in range(episode.length):
            if episode.stage[frame] < 0 or (frame in starts and frame > min(starts)):
                continue  # at a boundary LeRobot gives the end of one stage, which is the start of the next
            stage, tau = find_stage_and_tau(frame, episode.length, *columns, list(shares), shares)
            segment = next(s for s in episode.stages if s.start <= frame < s.end)
            assert (stage, tau) == (
                segment.stage,
                pytest.approx((frame - segment.start) / (segment.end - segment.start)),
            )


def test_the_sarm_columns_alone_bring_the_stages_back(original, exported, tmp_path, run_command):
    bare = tmp_path / "bare"
    shutil.copytree(exported, bare)
    (bare / "meta/robo_rm.json").unlink()
    (bare / "meta/subtasks.parquet").unlink()
    back = bring_back(run_command, bare, tmp_path / "back.zarr")
    assert back.stages == STAGES
    for one, two in zip(original, back, strict=True):
        np.testing.assert_array_equal(one.stage, two.stage)


def test_success_and_the_two_ends_of_an_episode_are_columns_of_their_own(exported):
    rows = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["success"] for row in rows] == [True, False, None, True]
    assert [(row["terminated"], row["truncated"]) for row in rows] == [
        (True, False),
        (False, True),
        (False, False),
        (True, True),
    ]


def test_the_real_episodes_survive_the_round_trip(shared_data, tmp_path, run_command):
    """Three real episodes: v2.1 -> store -> v3.0 opened by LeRobot -> store."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    source = shared_data / "g1_pick_bottle"
    small = tmp_path / "small"
    shutil.copytree(source / "meta", small / "meta", copy_function=shutil.copyfile)
    for part in ("data", "videos"):
        (small / part).symlink_to(source / part)
    info = json.loads((source / "meta/info.json").read_text())
    lines = (source / "meta/episodes.jsonl").read_text().splitlines()[:3]
    (small / "meta/episodes.jsonl").unlink()
    (small / "meta/info.json").unlink()
    (small / "meta/info.json").write_text(json.dumps({**info, "total_episodes": 3}))
    (small / "meta/episodes.jsonl").write_text("\n".join(lines))
    notes = json.loads((source / "subtasks.json").read_text())[:3]
    (tmp_path / "subtasks.json").write_text(json.dumps(notes))
    first = bring_back(run_command, small, tmp_path / "a.zarr", f"stages={tmp_path / 'subtasks.json'}")
    export_lerobot(first, tmp_path / "v3", workers=0)
    data = LeRobotDataset("local/g1", root=tmp_path / "v3")
    rows = data.hf_dataset.with_format("numpy")[: data.num_frames]
    for key in ("observation.state", "action"):
        whole = np.concatenate([episode[key][:] for episode in first])
        assert np.asarray(rows[key]).tobytes() == whole.tobytes()
    back = bring_back(run_command, tmp_path / "v3", tmp_path / "b.zarr")
    assert_same(first, back)
    camera = first.cameras[0]
    difference = np.abs(first[1][camera][::40].astype(int) - back[1][camera][::40])
    assert difference.mean() < 3
    assert np.quantile(difference, 0.999) <= 24


def test_an_export_that_was_killed_goes_on(original, tmp_path, monkeypatch):
    from robo_datasets.exporters.lerobot import exporter as lerobot

    real, calls = lerobot.write_video, []

    def fails_at_the_second(job: Any, folder: Path) -> Any:
        calls.append(job)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(job, folder)

    monkeypatch.setattr(lerobot, "write_video", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export_lerobot(original, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()
    before = len(calls)
    written = export_lerobot(original, tmp_path / "out", workers=0)
    assert len(calls) - before == written["video_files"] - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert video_header(tmp_path / f"out/videos/{FRONT}/chunk-000/file-000.mp4").frames == sum(LENGTHS)


def test_a_changed_store_starts_an_unfinished_export_over(tmp_path, monkeypatch):
    from robo_datasets.exporters.lerobot import exporter as lerobot

    store = make(tmp_path / "d.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(lerobot, "write_meta", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_lerobot(store, tmp_path / "out", workers=0)
    store.set_success(store.uuids[2], True)
    export_lerobot(store, tmp_path / "out", workers=0)
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert rows[2]["success"] is True


def test_two_processes_write_the_same_data_set_as_one(original, exported, tmp_path):
    export_lerobot(original, tmp_path / "out", workers=2)
    for path in exported.rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(exported)).read_bytes() == path.read_bytes(), path


def test_a_target_that_holds_something_and_an_empty_store_are_refused(original, tmp_path, run_command):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/keep.txt").write_text("mine")
    code, _, err = run_command("export", "lerobot", f"store={original.path}", f"target={tmp_path / 'out'}")
    assert (code, "already holds something" in err) == (2, True)
    empty = DemoStore.create(tmp_path / "e.zarr", FEATURES, 10)
    with pytest.raises(StoreError, match="no episodes"):
        export_lerobot(empty, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.zarr", "out"]


@pytest.mark.parametrize(
    "settings",
    [
        LeRobotSettings(images="gif"),
        LeRobotSettings(crf=99),
        LeRobotSettings(gop=0),
        LeRobotSettings(images="av1", pixel_format="yuv444p"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_written(original, tmp_path, settings):
    with pytest.raises(ConfigError):
        export_lerobot(original, tmp_path / "out", settings)
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_and_reports(original, tmp_path, run_command):
    words = (f"store={original.path}", f"target={tmp_path / 'o'}", "workers=0", "images=png", f"out={tmp_path / 'm'}")
    code, out, _ = run_command("export", "lerobot", *words)
    assert (code, "4 episodes, 41 frames" in out) == (0, True)
    assert json.loads((tmp_path / "m/metrics.json").read_text())["video_files"] == 0


def test_statistics_agree_with_lerobots(original, exported):
    from lerobot.datasets.compute_stats import get_feature_stats

    states = original[1]["observation.state"][:]
    theirs, ours = get_feature_stats(states, axis=0, keepdims=False), row_statistics(states)
    for name in ("min", "max", "mean", "count"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)
    frames = original[1][FRONT][:]
    counts = PixelCounts(len(frames), 3)
    for frame in frames:
        counts.add(frame)
    figures = counts.statistics()
    scaled = frames.reshape(-1, 3) / 255
    for name, wanted in (("mean", scaled.mean(0)), ("std", scaled.std(0)), ("min", scaled.min(0))):
        np.testing.assert_allclose(np.ravel(figures[name]), wanted, rtol=1e-9)
    np.testing.assert_allclose(np.ravel(figures["q50"]), np.quantile(scaled, 0.5, axis=0), atol=1 / 255)
    assert np.shape(figures["mean"]) == (3, 1, 1)
    whole = np.concatenate([episode["action"][:] for episode in original])
    joined = joined_statistics([row_statistics(episode["action"][:]) for episode in original])
    np.testing.assert_allclose(joined["mean"], whole.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(joined["std"], whole.std(0, dtype=np.float64), rtol=1e-6)
    written = json.loads((exported / "meta/stats.json").read_text())
    np.testing.assert_allclose(written["action"]["mean"], joined["mean"])


def test_files_hold_whole_episodes_up_to_a_bound():
    assert group_episodes([5, 5, 5, 20, 1], float, 10) == [[0, 1], [2], [3], [4]]


@pytest.mark.parametrize("frame", [0, 9])
def test_a_damaged_store_is_one_clear_line_and_no_data_set(tmp_path, run_command, frame):
    store = make(tmp_path / "d.zarr")
    files = [file for file in (store.path / f"episodes/{store.uuids[1]}/{FRONT}").rglob("*") if file.is_file()]
    shard = max(files, key=lambda file: file.stat().st_size)
    data = bytearray(shard.read_bytes())
    start = len(data) * frame // LENGTHS[1]
    data[start : start + 60] = bytes(60)
    shard.write_bytes(data)
    words = (f"store={store.path}", f"target={tmp_path / 'out'}", "workers=0")
    code, _, err = run_command("export", "lerobot", *words)
    lines = [line for line in err.strip().splitlines() if "robo-rm" in line]
    assert (code, len(lines), str(shard) in lines[-1] if lines else False) == (2, 1, True), err
    assert not (tmp_path / "out").exists()


def write_and_give_up(path: Path, frames: int) -> None:
    with VideoWriter(path, 48, 64, 10) as video:
        for frame in smooth_frames(4, 48, 64)[:frames]:
            video.add(frame)
        raise KeyError


def test_a_video_that_is_given_up_leaves_nothing(tmp_path):
    for frames in (0, 3):
        with pytest.raises(KeyError):
            write_and_give_up(tmp_path / "x.mp4", frames)
    with VideoWriter(tmp_path / "x.mp4", 48, 64, 10), pytest.raises(StoreError, match="takes"):
        VideoWriter(tmp_path / "y.mp4", 48, 64, 10).add(np.zeros((9, 9, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".x", "x"))] == []


@pytest.mark.parametrize("shape", [(33, 47), (16, 16), (1, 1)])
def test_frames_of_any_size_become_video(tmp_path, shape):
    height, width = shape
    frames = smooth_frames(3, height, width).reshape(3, height, width, 3)
    with VideoWriter(tmp_path / "x.mp4", height, width, 29.97) as video:
        for frame in frames:
            video.add(frame)
    header = video_header(tmp_path / "x.mp4")
    assert (header.frames, header.height, header.width, round(header.fps, 2)) == (3, height, width, 29.97)


def test_an_export_that_comes_back_into_its_store_adds_nothing_but_what_was_changed(tmp_path, run_command):
    store, target = make(tmp_path / "a.zarr"), tmp_path / "set"
    export_lerobot(store, target, workers=0)
    for more in ([], ["relabel=true"], ["episodes=[0,1]"]):
        assert bring_back(run_command, target, store.path, *more).uuids == store.uuids
    (file,) = (target / "data").rglob("*.parquet")
    table = pq.read_table(file)
    rows = table["action"].to_pylist()
    rows[0] = [0.0, 1.0, 2.0]
    pq.write_table(table.set_column(table.column_names.index("action"), "action", [rows]), file)
    code, said, _ = run_command("import", "lerobot", f"source={target}", f"store={store.path}", "workers=0")
    assert code == 0
    assert f"episode 0 was exported from {store.uuids[0]}, which the store holds; its numbers are others now" in said
    back = DemoStore.open(store.path)
    assert len(back) == len(store) + 1
    assert sum(np.array_equal(episode["action"][0], [0, 1, 2]) for episode in back) == 1
