"""The output folder: resolved settings, flat metrics, clear refusals, and nobody else's files touched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from robo_core.errors import ConfigError
from robo_core.outputs import POLICY, REWARD_MODEL, RL_POLICY, OutputFolder, check_output


@dataclass(frozen=True)
class Settings:
    store: str = "a.zarr"
    limit: float | None = None


@dataclass(frozen=True)
class WithOut:
    out: str = "results"


def test_it_writes_the_settings_and_metrics_that_json_can_hold(tmp_path):
    out = OutputFolder(tmp_path / "new/results", Settings())
    out.write_metrics({"voc": np.float32(0.5), "mse": float("nan"), "episodes": np.int64(3)})
    assert out.path("config.yaml").read_text() == "store: a.zarr\nlimit: null\n"
    assert json.loads(out.path("metrics.json").read_text()) == {"episodes": 3, "mse": None, "voc": 0.5}
    assert sorted(path.name for path in out.folder.iterdir()) == ["config.yaml", "metrics.json"]


@pytest.mark.parametrize("case", ["file", "empty", "below a file", "null byte", "too long", "no folder"])
def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path, case):
    file = tmp_path / "file"
    file.write_text("mine")
    place = {
        "file": file,
        "empty": "",
        "below a file": file / "sub",
        "null byte": "a\0b",
        "too long": tmp_path / ("x" * 300),
        "no folder": "/proc/results",
    }[case]
    with pytest.raises(ConfigError, match="out"):
        OutputFolder(place)
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def foreign(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("meta/info.json", "data/chunk-000/file-000.parquet"),
        ("zarr.json",),
        ("config.yaml", "train.py"),
        ("metrics.json", "results.csv"),
        ("config.json", "model.safetensors"),
        ("notes.txt",),
    ],
)
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_was(tmp_path, names):
    place = foreign(tmp_path / "theirs", *names)
    before = sorted(path.relative_to(place) for path in place.rglob("*"))
    for attempt in (lambda: OutputFolder(place, WithOut()), lambda: check_output(place)):
        with pytest.raises(ConfigError, match="no robo-rm command wrote"):
            attempt()
    assert sorted(path.relative_to(place) for path in place.rglob("*")) == before


def test_a_folder_of_ours_is_written_to_again(tmp_path):
    with_settings = OutputFolder(tmp_path / "a", WithOut())
    foreign(with_settings.folder, "episodes.json")
    OutputFolder(with_settings.folder, WithOut())
    # Work that writes config.yaml last, such as training: interrupted in the middle, it has left other files.
    begun = OutputFolder(tmp_path / "b")
    foreign(begun.folder, "checkpoint.safetensors")
    OutputFolder(begun.folder)
    OutputFolder(tmp_path / "parts" / "member-0")
    OutputFolder(tmp_path / "parts")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".DS_Store").touch()
    OutputFolder(tmp_path / "c")


def test_a_check_leaves_nothing_behind(tmp_path):
    check_output(tmp_path / "a" / "b" / "c")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    check_output(tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("command", ["info", "eval-reward model=rm store=s.zarr", "train-policy store=s.zarr"])
def test_every_command_finds_out_before_any_work(tmp_path, run_command, command):
    theirs = foreign(tmp_path / "dataset", "meta/info.json")
    for place, says in ((theirs, "no robo-rm command wrote"), (theirs / "meta/info.json", "is a file")):
        code, printed, error = run_command(*command.split(), f"out={place}")
        assert (code, printed) == (2, "")
        assert says in error
        assert "s.zarr" not in error, "refused before the store is looked for"
        assert error.count("\n") == 1
    assert [path.name for path in theirs.iterdir()] == ["meta"]


@pytest.mark.parametrize(
    ("held", "files"),
    [
        (REWARD_MODEL, {"config.yaml": "model:\n  format: robo-rm stage 3\n", "model.safetensors": "x"}),
        (POLICY, {"config.json": "{}", "model.safetensors": "x", "config.yaml": "out: here\n"}),
        (RL_POLICY, {"rl_policy.json": "{}", "config.yaml": "out: here\n"}),
    ],
)
def test_a_model_is_never_written_over_by_a_report_or_another_kind_of_model(tmp_path, held, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for other in ("", *({REWARD_MODEL, POLICY, RL_POLICY} - {held})):
        with pytest.raises(ConfigError, match=rf"holds an? {held}, which this would write over; give another folder"):
            OutputFolder(tmp_path, WithOut(), other)
    assert {name: (tmp_path / name).read_text() for name in files} == files
    check_output(tmp_path, held)


@pytest.mark.parametrize("holds", [REWARD_MODEL, POLICY, RL_POLICY])
def test_no_model_is_trained_into_the_folder_of_another(tmp_path, holds):
    rm = foreign(tmp_path / "rm", "model.safetensors")
    (rm / "config.yaml").write_text("model:\n  format: robo-rm stage 3\n")
    for place in (rm / "second", rm / "runs" / "second"):
        with pytest.raises(ConfigError, match=r"lies inside .*/rm, a reward model; give a folder beside it"):
            check_output(place, holds)
    assert sorted(path.name for path in rm.iterdir()) == ["config.yaml", "model.safetensors"]
    check_output(rm / "report")  # a report on the model may stand with it


def test_nothing_is_written_into_a_store(tmp_path):
    store = tmp_path / "demos.zarr"
    (store / "episodes").mkdir(parents=True)
    for name in ("zarr.json", "index.json"):
        (store / name).write_text("{}")
    for place in (store / "derived" / "rm", store / "report"):
        with pytest.raises(ConfigError, match=r"lies inside the demo store .*demos\.zarr; give a folder outside"):
            OutputFolder(place, WithOut())
    assert not (store / "report").exists()
    check_output(tmp_path / "rm")
