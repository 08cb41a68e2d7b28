"""Progress files of LeRobot's SARM, Robometer and TOPReward, evaluated and used like a reward model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from brightness_model import make_bright_store

from robo_core.errors import ModelError
from robo_datasets import DemoStore
from robo_datasets.exporters.lerobot.exporter import export_lerobot
from robo_rm import load_reward_model
from robo_rm.scoring import progress_from_feature

TRUE = "simulator.progress"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DemoStore:
    kinds = ("clean", "pause", "partial", "clean", "clean")
    return make_bright_store(tmp_path_factory.mktemp("s") / "demos.zarr", kinds)


@pytest.fixture(scope="module")
def dataset(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("v3") / "dataset"
    export_lerobot(store, out, workers=0)
    return out


def write(path: Path, progress: np.ndarray, store: DemoStore) -> Path:
    """A file as robometer's script writes it: no dense column, and its model in the metadata of the schema."""
    lengths = list(store.lengths.values())
    table = pa.table(
        {
            "index": np.arange(len(progress)),
            "episode_index": np.repeat(np.arange(len(lengths)), lengths),
            "frame_index": np.concatenate([np.arange(length) for length in lengths]),
            "progress_sparse": progress.astype(np.float32),
        }
    ).replace_schema_metadata({"reward_model_path": "someone/robometer"})
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(progress))), path)
    return path


@pytest.fixture(scope="module")
def progress(store) -> np.ndarray:
    return np.concatenate(list(progress_from_feature(store, TRUE).values()))


def test_a_robometer_file_is_evaluated_ranked_and_scored(store, dataset, progress, tmp_path, run_command):
    random = np.random.default_rng(1)
    made = {"good": progress, "bad": random.random(len(progress))}
    for name, values in made.items():
        file = write(dataset / f"{name}_progress.parquet", values, store)
        words = ("reward=recorded", f"reward.file={file}", f"store={store.path}", "holdout=2", f"out={tmp_path / name}")
        code, _, err = run_command("train-reward", *words)
        assert code == 0, err
    model = load_reward_model(tmp_path / "good")
    for uuid, values in progress_from_feature(store, TRUE).items():
        np.testing.assert_array_equal(model.predict(store.episode(uuid)).progress, values)
    words = (f"store={store.path}", "resamples=20", f"out={tmp_path / 'report'}")
    code, _, err = run_command("eval-reward", f"model={tmp_path / 'good'}", *words)
    assert code == 0, err
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert metrics["voc"] > 0.9
    assert metrics["stream_ms"] is None
    folders = f"models=[{tmp_path / 'bad'},{tmp_path / 'good'}]"
    code, out, err = run_command("leaderboard", folders, *words[:2], f"out={tmp_path / 'board'}")
    assert code == 0, err
    assert out.index("good") < out.index("bad")
    code, _, err = run_command("score", f"model={tmp_path / 'good'}", f"store={store.path}")
    assert code == 0, err


def test_it_knows_the_recorded_episodes_alone(store, dataset, progress, tmp_path, run_command):
    file = write(dataset / "sarm_progress.parquet", progress, store)
    words = ("reward=recorded", f"reward.file={file}", f"store={store.path}", "holdout=0", f"out={tmp_path / 'rm'}")
    assert run_command("train-reward", *words)[0] == 0
    model = load_reward_model(tmp_path / "rm")
    other = make_bright_store(tmp_path / "other.zarr", ("clean",))
    with pytest.raises(ModelError, match="no progress was recorded for episode"):
        model.predict(other[0])
    with pytest.raises(ModelError, match="cannot follow an episode"):
        model.stream()


@pytest.mark.parametrize("case", ["nan", "outside", "short", "column", "nofile", "strange"])
def test_a_file_that_cannot_be_used_is_refused_with_the_place(store, dataset, progress, tmp_path, run_command, case):
    values = progress.copy()
    said = {
        "nan": "progress_sparse of episode 0 is nan at frame 3",
        "outside": "is 1.5 at frame 3, not in [0, 1]",
        "short": "of the",
        "column": "reward.column='progress_dense'",
        "nofile": "reward.file='",
        "strange": "is not a progress file of LeRobot's",
    }[case]
    values[3] = {"nan": np.nan, "outside": 1.5}.get(case, values[3])
    file = write(dataset / f"{case}.parquet", values, store)
    if case == "short":
        pq.write_table(pq.read_table(file).slice(3), file)
    if case == "strange":
        pq.write_table(pa.table({"a": [1]}), file)
    words = ["reward=recorded", f"store={store.path}", f"out={tmp_path / 'rm'}"]
    words += [] if case == "nofile" else [f"reward.file={file}"]
    words += ["reward.column=progress_dense"] if case == "column" else []
    code, _, err = run_command("train-reward", *words)
    assert (code, said in err) == (2, True), err
    assert not (tmp_path / "rm").exists()
