"""Instructions from every place where LeRobot datasets keep them, and columns of words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robo_datasets import DemoStore
from robo_datasets.exporters.lerobot.exporter import export_lerobot
from robo_datasets.exporters.lerobot.layout import LeRobotSettings
from robo_datasets.importers.lerobot.v2 import LeRobotV2Source, read_json_lines
from robo_datasets.importers.lerobot.v3 import LeRobotV3Source
from robo_datasets.importers.run import import_source
from robo_datasets.importers.selection import SelectedSource, Selection
from tests.datasets.lerobot_sets import as_v3, write_v21

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
TASK = "annotation.task_index"
SWITCH = ["pick", "place"]


def brought_in(source, store: Path) -> DemoStore:
    import_source(source, store, workers=0)
    return DemoStore.open(store)


def switched(number: int, length: int) -> dict[str, np.ndarray]:
    return {"task_index": (np.arange(length) >= 4).astype(np.int64)}


def test_the_instruction_is_found_without_the_column_of_tasks(tmp_path):
    by_number = {"columns": lambda number, length: {"task_index": np.full(length, number)}}
    root = as_v3(write_v21(tmp_path / "set", [6, 7], tasks=SWITCH, **by_number), tmp_path / "v3")
    table = pq.read_table(root / EPISODES)
    pq.write_table(table.drop_columns(["tasks"]), root / EPISODES)
    assert [episode.task for episode in brought_in(LeRobotV3Source(root), tmp_path / "d.zarr")] == SWITCH


@pytest.mark.parametrize("version", [2, 3])
def test_every_frames_instruction_is_kept_and_the_first_is_the_episodes(tmp_path, version):
    root = write_v21(tmp_path / "set", [8], tasks=SWITCH, columns=switched, listed={0: ["place", "pick"]})
    source = LeRobotV2Source(root) if version == 2 else LeRobotV3Source(as_v3(root, tmp_path / "v3"))
    episode = brought_in(source, tmp_path / "d.zarr")[0]
    assert episode.task == "pick"
    assert episode.attributes["instructions_by_frame"] == [[0, 4, "pick"], [4, 8, "place"]]
    assert [episode.attributes["tasks"][k] for k in episode[TASK][:].ravel()] == ["pick"] * 4 + ["place"] * 4
    assert any("changes within episodes" in note for note in source.notes)


def test_instructions_by_frame_go_out_and_come_back(tmp_path):
    root = write_v21(tmp_path / "set", [8, 6], tasks=SWITCH, columns=switched, listed={0: SWITCH, 1: SWITCH})
    store = brought_in(LeRobotV2Source(root), tmp_path / "d.zarr")
    export_lerobot(store, tmp_path / "out", LeRobotSettings(), workers=0)
    rows = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")["task_index"].to_pylist()
    assert rows == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 2
    assert pq.read_table(tmp_path / "out" / EPISODES)["tasks"].to_pylist() == [SWITCH, SWITCH]
    again = brought_in(LeRobotV3Source(tmp_path / "out"), tmp_path / "again.zarr")
    assert set(again.schema) == set(store.schema)
    for one, two in zip(store, again, strict=True):
        assert (one.task, one.attributes) == (two.task, two.attributes)
        assert np.array_equal(one[TASK][:], two[TASK][:])


def test_a_store_without_the_feature_takes_the_runs_and_the_other_way_round(tmp_path):
    plain = write_v21(tmp_path / "a", [8])
    change = write_v21(tmp_path / "b", [8], seed=1, tasks=SWITCH, columns=switched, listed={0: SWITCH})
    brought_in(LeRobotV2Source(plain), tmp_path / "a.zarr")
    store = brought_in(LeRobotV2Source(change), tmp_path / "a.zarr")
    assert (len(store), TASK in store.schema) == (2, False)
    assert store[1].attributes["instructions_by_frame"][1] == [4, 8, "place"]
    brought_in(LeRobotV2Source(change), tmp_path / "b.zarr")
    store = brought_in(LeRobotV2Source(plain), tmp_path / "b.zarr")
    assert (len(store), store[1][TASK][:].any()) == (2, False)


def test_runs_follow_the_frames_that_are_picked(tmp_path):
    root = write_v21(tmp_path / "set", [8], tasks=SWITCH, columns=switched, listed={0: SWITCH})
    episode = brought_in(SelectedSource(LeRobotV2Source(root), Selection(fps=5)), tmp_path / "d.zarr")[0]
    assert episode.attributes["instructions_by_frame"] == [[0, 2, "pick"], [2, 4, "place"]]
    assert episode[TASK][:].ravel().tolist() == [0, 0, 1, 1]


def test_frames_that_disagree_with_the_list_of_episodes_are_said(tmp_path):
    root = write_v21(tmp_path / "set", [6, 6], tasks=["pick", "place"], listed={0: ["pick"], 1: ["open"]})
    result = import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0)
    assert [episode.task for episode in DemoStore.open(tmp_path / "d.zarr")] == ["pick", "open"]
    assert any("episode 1: its frames say ['pick']" in note and "the list counts" in note for note in result.notes)
    other = write_v21(tmp_path / "b", [6], tasks=SWITCH, columns=lambda n, t: {"task_index": np.full(t, 1)}, seed=3)
    result = import_source(LeRobotV2Source(other), tmp_path / "e.zarr", workers=0)
    assert DemoStore.open(tmp_path / "e.zarr")[0].task == "place"
    assert any("the frames count" in note for note in result.notes)


def test_no_instruction_at_all_is_said(tmp_path):
    source = LeRobotV2Source(write_v21(tmp_path / "set", [6], tasks=[""]))
    assert any("no episode has an instruction" in note for note in source.notes)
    (tmp_path / "set/meta/tasks.jsonl").unlink()
    assert any("no episode has an instruction" in note for note in LeRobotV2Source(tmp_path / "set").notes)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_marks_that_only_python_takes_for_line_ends_are_part_of_an_instruction(tmp_path, mark):
    task = f"pick{mark}up"
    assert (
        brought_in(LeRobotV2Source(write_v21(tmp_path / "s", [6], tasks=[task])), tmp_path / "d.zarr")[0].task == task
    )


def test_json_lines_with_windows_ends_and_a_mark_of_byte_order(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert read_json_lines(tmp_path / "a.jsonl") == [{"a": 1}, {"a": 2}]


def test_columns_of_text_are_kept_as_attributes(tmp_path):
    features = {key: {"dtype": "string", "shape": [1], "names": None} for key in ("language_instruction", "phase")}

    def columns(number: int, length: int) -> dict:
        return {"language_instruction": ["grab it"] * length, "phase": ["a"] * 2 + ["b"] * (length - 2)}

    source = LeRobotV2Source(write_v21(tmp_path / "set", [6], tasks=[""], features=features, columns=columns))
    episode = brought_in(source, tmp_path / "d.zarr")[0]
    assert episode.task == "grab it"
    assert episode.attributes == {"language_instruction": "grab it", "phase": [[0, 2, "a"], [2, 6, "b"]]}
    assert any(note.startswith("phase is text") for note in source.notes)


def test_language_rows_of_lerobot_are_kept(tmp_path):
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("style", pa.string())]))
    always = [
        {"role": "user", "content": "take the cube", "style": "task_aug"},
        {"role": "assistant", "content": "reach", "style": "subtask"},
    ]
    event = [{"role": "user", "content": "stop", "style": "interjection"}]

    def columns(number: int, length: int) -> dict:
        events = [event if row == 3 else [] for row in range(length)]
        return {
            "language_persistent": pa.array([always] * length, kind),
            "language_events": pa.array(events, kind),
        }

    features = {
        key: {"dtype": "language", "shape": [1], "names": None} for key in ("language_persistent", "language_events")
    }
    root = as_v3(write_v21(tmp_path / "set", [6], features=features, columns=columns), tmp_path / "v3")
    attributes = brought_in(LeRobotV3Source(root), tmp_path / "d.zarr")[0].attributes
    assert attributes["language_persistent"] == always
    assert attributes["language_events"] == [[3, 4, event]]
    assert attributes["instructions"] == ["pick", "take the cube"]
    json.dumps(attributes)


@pytest.mark.parametrize("version", [2, 3])
def test_what_people_note_beside_an_episode_is_kept_and_its_outcome_believed(tmp_path, run_command, version):
    source = write_v21(tmp_path / "set", [6, 7, 8, 9])
    notes = [
        {"success": True, "operator": "ann"},
        {"outcome": "failure", "attempt": 3, "operator": "bo"},
        {"grade": "half success", "scene": {"lights": 2}},
        {},
    ]
    if version == 3:
        source = as_v3(source, tmp_path / "v3")
        file = source / "meta/episodes/chunk-000/file-000.parquet"
        table = pq.read_table(file)
        for name in ("success", "outcome", "grade", "operator", "attempt"):
            table = table.append_column(name, pa.array([note.get(name) for note in notes]))
        pq.write_table(table, file)
    else:
        file = source / "meta/episodes.jsonl"
        lines = [json.loads(line) | note for line, note in zip(file.read_text().splitlines(), notes, strict=True)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, said, _ = run_command("import", "lerobot", f"source={source}", f"store={tmp_path / 's.zarr'}", "workers=0")
    assert code == 0
    assert "whether 1 of 4 episodes succeeded" in said
    store = DemoStore.open(tmp_path / "s.zarr")
    assert [episode.success for episode in store] == [True, False, False, None]
    first, second, third, last = (episode.attributes for episode in store)
    assert first["operator"] == "ann"
    assert (second["grade"], second["attempt"], second["operator"]) == ("failure", 3, "bo")
    assert (third["grade"], third["grade_value"]) == ("half success", 0.5)
    assert version == 3 or third["scene"] == {"lights": 2}
    assert "operator" not in last


def test_a_feature_that_says_frame_by_frame_whether_the_task_is_done_is_believed_by_other_names(tmp_path):
    source = write_v21(
        tmp_path / "set",
        [6, 7],
        features={"is_success": {"dtype": "bool", "shape": [1], "names": None}},
        columns=lambda number, length: {"is_success": np.arange(length) >= 6},
    )
    assert [episode.success for episode in LeRobotV2Source(source).episodes] == [False, True]
