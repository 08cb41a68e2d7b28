"""Subtasks that LeRobot 0.6 keeps in its language columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from brightness_model import make_bright_store

from robo_datasets import DemoStore
from robo_datasets.exporters.lerobot.exporter import export_lerobot

ROW = pa.struct(
    [
        ("role", pa.string()), ("content", pa.string()), ("style", pa.string()), ("timestamp", pa.float32()),
        ("camera", pa.string()), ("tool_calls", pa.list_(pa.string())),
    ]
)  # fmt: skip


def row(content: str | None, style: str, time: float) -> dict[str, Any]:
    role = "assistant"
    return {"role": role, "content": content, "style": style, "timestamp": time, "camera": None, "tool_calls": None}


@pytest.fixture
def store(tmp_path) -> DemoStore:
    return make_bright_store(tmp_path / "demos.zarr", ("clean", "partial"))


def with_language(store: DemoStore, root: Path, rows: dict[int, list[dict[str, Any]]] | None = None) -> Path:
    """An export whose stages stand in the language column alone, as LeRobot's annotation pipeline writes them."""
    export_lerobot(store, root, workers=0)
    for name in ("meta/robo_rm.json", "meta/subtasks.parquet"):
        (root / name).unlink()
    (episodes,) = (root / "meta/episodes").rglob("*.parquet")
    table = pq.read_table(episodes)
    pq.write_table(table.drop([n for n in table.column_names if "subtask" in n or n.startswith("robo_rm.")]), episodes)
    (data,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(data).drop(["subtask_index"])
    if rows is None:
        rows = {
            number: [row("do it", "plan", 0.0)]
            + [row(segment.name, "subtask", segment.start / store.fps) for segment in reversed(episode.stages)]
            for number, episode in enumerate(store)
        }
    column = [rows[number] for number in table["episode_index"].to_pylist()]
    pq.write_table(table.append_column("language_persistent", pa.array(column, pa.list_(ROW))), data)
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"].pop("subtask_index")
    info["features"]["language_persistent"] = {"dtype": "language", "shape": [1], "names": None}
    path.write_text(json.dumps(info))
    return root


@pytest.mark.parametrize("annotation", ["auto", "language"])
def test_they_become_the_stages_of_the_store(store, tmp_path, run_command, annotation):
    source = with_language(store, tmp_path / "v3")
    words = (f"source={source}", f"store={tmp_path / 'back.zarr'}", f"annotation={annotation}")
    code, _, err = run_command("import", "lerobot", *words)
    assert code == 0, err
    back = DemoStore.open(tmp_path / "back.zarr")
    assert back.stages == store.stages
    for one, two in zip(store, back, strict=True):
        assert [(s.name, s.end) for s in one.stages] == [(s.name, s.end) for s in two.stages][: len(one.stages)]
        np.testing.assert_array_equal(one.stage, two.stage)


def test_none_leaves_them_and_a_time_behind_the_episode_is_refused(store, tmp_path, run_command):
    late = {number: [row("reach", "subtask", 0.0), row("lift", "subtask", 1e4)] for number in range(2)}
    source = with_language(store, tmp_path / "v3", late)
    code, _, err = run_command("import", "lerobot", f"source={source}", f"store={tmp_path / 'a.zarr'}")
    assert (code, "the subtask 'lift' starts at 10000 s, after the last frame" in err) == (2, True)
    words = (f"source={source}", f"store={tmp_path / 'b.zarr'}", "annotation=none")
    assert run_command("import", "lerobot", *words)[0] == 0
    assert DemoStore.open(tmp_path / "b.zarr").stages == []
