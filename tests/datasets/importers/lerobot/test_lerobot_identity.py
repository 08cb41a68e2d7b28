"""A LeRobot dataset that grows, moves, is repacked or relabelled: its episodes are known by their content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robo_datasets import DemoStore
from robo_datasets.doctor.examine import examine
from robo_datasets.importers.lerobot.v2 import LeRobotV2Source
from robo_datasets.importers.lerobot.v3 import LeRobotV3Source
from robo_datasets.importers.run import import_source
from robo_datasets.importers.source import episode_content
from robo_datasets.store.summary import summarise
from tests.datasets.lerobot_sets import as_v3, png, write_v21, write_video

EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def bring_in(source, store: Path):
    return import_source(source, store, workers=0)


def test_two_recordings_with_equal_descriptions_both_come_in(tmp_path):
    for seed in (0, 1):
        write_v21(tmp_path / f"{seed}", [8, 8], seed=seed)
        assert bring_in(LeRobotV2Source(tmp_path / f"{seed}"), tmp_path / "d.zarr").added == 2
    assert len(DemoStore.open(tmp_path / "d.zarr")) == 4


def test_a_grown_moved_and_renamed_data_set_adds_only_what_is_new(tmp_path):
    write_v21(tmp_path / "set", [8, 9])
    assert bring_in(LeRobotV2Source(tmp_path / "set"), tmp_path / "d.zarr").added == 2
    shutil.rmtree(tmp_path / "set")
    write_v21(tmp_path / "other", [8, 9, 10], tasks=["pick up"])
    result = bring_in(LeRobotV2Source(tmp_path / "other"), tmp_path / "d.zarr")
    assert (result.added, result.skipped, result.differing) == (1, 2, {"instruction": 2})
    assert (
        import_source(LeRobotV2Source(tmp_path / "other"), tmp_path / "d.zarr", workers=0, relabel=True).relabelled == 2
    )
    assert DemoStore.open(tmp_path / "d.zarr").tasks == ["pick up"]


def test_a_data_set_of_version_3_made_of_one_of_2_1_holds_the_same_episodes(tmp_path):
    old = LeRobotV2Source(write_v21(tmp_path / "v2", [8, 9, 10]))
    new = LeRobotV3Source(as_v3(tmp_path / "v2", tmp_path / "v3"))
    for one, two in zip(old.episodes, new.episodes, strict=True):
        assert episode_content(old, one) == episode_content(new, two)
    bring_in(old, tmp_path / "d.zarr")
    assert bring_in(new, tmp_path / "d.zarr").skipped == 3


def test_embedded_images_count_too(tmp_path):
    def images(level: int):
        return lambda number, length: [png(np.full((32, 48, 3), level + row, np.uint8)) for row in range(length)]

    one = LeRobotV2Source(write_v21(tmp_path / "a", [6], images=images(0)))
    two = LeRobotV2Source(write_v21(tmp_path / "b", [6], images=images(1)))
    three = LeRobotV3Source(as_v3(tmp_path / "a", tmp_path / "c"))
    contents = [episode_content(source, source.episodes[0]) for source in (one, two, three)]
    assert contents[0].rows == contents[1].rows
    assert contents[0] != contents[1]
    assert contents[0] == contents[2]


def test_other_images_are_another_episode(tmp_path):
    def dark(path: Path, frames: np.ndarray, fps: float) -> None:
        write_video(path, frames // 2, fps)

    write_v21(tmp_path / "a", [8])
    write_v21(tmp_path / "b", [8], make_video=dark)
    bring_in(LeRobotV2Source(tmp_path / "a"), tmp_path / "d.zarr")
    assert bring_in(LeRobotV2Source(tmp_path / "b"), tmp_path / "d.zarr").added == 1
    found = [finding for finding in examine(tmp_path / "d.zarr").findings if finding.check == "duplicate"]
    store = DemoStore.open(tmp_path / "d.zarr")
    assert len(found) == 1
    assert all(uuid in found[0].message for uuid in store.uuids)
    assert "(episode 0 of b) is episode" in found[0].message
    assert "(episode 0 of a) again, with the same numbers bit for bit and other images" in found[0].message


def test_an_episode_recorded_twice_is_found_by_the_doctor(make_store):
    from small_demos import add_episode

    store = make_store(episodes=2)
    add_episode(store, seed=1, task="put")
    found = [finding for finding in examine(store.path).findings if finding.check == "duplicate"]
    assert [finding.where for finding in found] == [store.uuids[2]]
    assert f"is episode {store.uuids[1]} again, equal to the last byte" in found[0].message


def test_a_summary_says_where_episodes_came_from(tmp_path, make_store):
    root = write_v21(tmp_path / "set", [8, 9])
    bring_in(LeRobotV2Source(root), tmp_path / "d.zarr")
    assert ("source", f"lerobot-2.1 {root} (2 episodes)") in summarise(DemoStore.open(tmp_path / "d.zarr"))
    assert ("source", "recorded, or of unknown origin (2 episodes)") in summarise(make_store(episodes=2))


def test_repeating_an_import_decodes_and_hashes_nothing(tmp_path, monkeypatch):
    root = as_v3(write_v21(tmp_path / "set", [8, 9]), tmp_path / "v3")
    bring_in(LeRobotV3Source(root), tmp_path / "d.zarr")
    source = LeRobotV3Source(root)
    monkeypatch.setattr(source, "identify", lambda episode, content: pytest.fail("read again"))
    assert bring_in(source, tmp_path / "d.zarr").skipped == 2


@pytest.mark.parametrize("removed", [0, 1])
def test_rows_are_found_though_meta_episodes_lists_no_longer_all_of_a_file(tmp_path, removed):
    root = as_v3(write_v21(tmp_path / "set", [8, 9, 10]), tmp_path / "v3")
    whole = LeRobotV3Source(root)
    bring_in(whole, tmp_path / "d.zarr")
    table = pq.read_table(root / EPISODES)
    pq.write_table(table.filter(table["episode_index"].to_numpy() != removed), root / EPISODES)
    left = LeRobotV3Source(root)
    assert [episode.number for episode in left.episodes] == [n for n in range(3) if n != removed]
    result = bring_in(left, tmp_path / "d.zarr")
    assert (result.added, result.skipped) == (0, 2)


def test_stages_that_changed_are_changed_in_the_store(tmp_path, run_command):
    root = write_v21(tmp_path / "set", [8])
    for name, end in (("one", 3), ("two", 5)):
        subtasks = [
            {"name": "reach", "start_frame": 0, "end_frame": end},
            {"name": "grasp", "start_frame": end, "end_frame": 8},
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps([{"episode_index": 0, "subtasks": subtasks}]))
    words = ["import", "lerobot", f"source={root}", f"store={tmp_path / 'd.zarr'}", "workers=0"]
    assert run_command(*words, f"stages={tmp_path / 'one.json'}")[0] == 0
    shutil.copytree(root, tmp_path / "moved")
    words[2] = f"source={tmp_path / 'moved'}"
    code, said, _ = run_command(*words, f"stages={tmp_path / 'two.json'}", "relabel=true")
    assert (code, "1 of these were relabelled" in said) == (0, True)
    store = DemoStore.open(tmp_path / "d.zarr")
    assert len(store) == 1
    assert store[0].stage.tolist() == [0] * 5 + [1] * 3


def edit_rows(root: Path, change) -> None:
    rows = pq.read_table(root / EPISODES).to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows), root / EPISODES)


def scrambled_ends(row: dict) -> None:
    row["dataset_from_index"], row["dataset_to_index"] = 0, 7 * row["episode_index"]


def the_file_before(row: dict) -> None:
    row["data/file_index"] = 1


@pytest.mark.parametrize("change", [scrambled_ends, the_file_before])
def test_rows_are_found_by_the_number_they_carry_whatever_meta_episodes_says(tmp_path, change):
    root = as_v3(write_v21(tmp_path / "set", [8, 9, 10]), tmp_path / "v3")
    bring_in(LeRobotV3Source(root), tmp_path / "d.zarr")
    edit_rows(root, change)
    assert bring_in(LeRobotV3Source(root), tmp_path / "d.zarr").skipped == 3


def test_starts_of_videos_that_have_drifted_by_a_frame_are_counted(tmp_path):
    root = as_v3(write_v21(tmp_path / "set", [8, 9, 10]), tmp_path / "v3")
    bring_in(LeRobotV3Source(root), tmp_path / "d.zarr")
    key = "videos/observation.images.front/from_timestamp"
    edit_rows(root, lambda row: row.update({key: row[key] + 0.1 * row["episode_index"]}))
    assert bring_in(LeRobotV3Source(root), tmp_path / "d.zarr").skipped == 3


def test_a_table_of_tasks_may_have_more_columns(tmp_path):
    root = as_v3(write_v21(tmp_path / "set", [8]), tmp_path / "v3")
    table = pa.table({"index": [0], "task_index": [0], "note": ["x"], "task": ["pick"]})
    pq.write_table(table, root / "meta/tasks.parquet")
    assert LeRobotV3Source(root).episodes[0].task == "pick"


def test_an_episode_whose_images_were_encoded_again_is_said(tmp_path):
    """As tools do that cut datasets: the numbers are the same, the packets are not."""

    def again(path: Path, frames: np.ndarray, fps: float) -> None:
        write_video(path, frames, fps, gop=3)

    bring_in(LeRobotV2Source(write_v21(tmp_path / "set", [8, 9])), tmp_path / "d.zarr")
    result = bring_in(LeRobotV2Source(write_v21(tmp_path / "cut", [8, 9], make_video=again)), tmp_path / "d.zarr")
    assert result.added == 2
    assert "2 episodes have the numbers of others in the store, with other pictures" in result.notes[0]
    other = bring_in(LeRobotV2Source(write_v21(tmp_path / "new", [8, 9], seed=5)), tmp_path / "d.zarr")
    assert (other.added, list(other.notes)) == (2, [])
