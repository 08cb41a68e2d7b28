"""Progress and weights in the files that LeRobot trains by: what its own sample weighting makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from brightness_model import make_bright_store

from robo_core.errors import ConfigError, StoreError
from robo_datasets import DemoStore
from robo_datasets.exporters.lerobot.exporter import export_lerobot
from robo_datasets.lerobot_progress import PROGRESS_FILE, ProgressFile
from robo_policies.cloning.lerobot_versions import from_lerobot
from robo_rm.scoring import progress_from_feature
from robo_rm.weights.lerobot_form import KAPPA, balancing_progress, progress_for_weights
from robo_rm.weights.rabc import store_weights

TRUE = "simulator.progress"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DemoStore:
    return make_bright_store(tmp_path_factory.mktemp("s") / "demos.zarr", ("clean", "pause", "partial", "clean"))


@pytest.fixture(scope="module")
def exported(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("v3") / "dataset"
    export_lerobot(store, out, workers=0)
    return out


@pytest.fixture
def dataset(exported, tmp_path) -> Path:
    return shutil.copytree(exported, tmp_path / "dataset")


def lerobots_weights(path: Path, frames: int, chunk: int, kappa: float, head: str = "sparse") -> np.ndarray:
    """The weight of each frame by LeRobot's own class, before it scales a batch."""
    theirs = from_lerobot("RABCWeights")(path, chunk_size=chunk, head_mode=head, kappa=kappa, device="cpu")
    gains = np.array([theirs._compute_delta(index) for index in range(frames)], np.float32)
    return theirs._compute_weights(gains)


@pytest.mark.parametrize("case", ["any", "few", "all"])
def test_lerobots_rule_gives_back_any_weights(case, tmp_path):
    from robo_datasets.lerobot_progress import write_rows

    random = np.random.default_rng(0)
    made = {"any": lambda n: random.uniform(0, 1, n), "few": lambda n: random.random(n) < 0.02, "all": np.ones}
    weights = [np.asarray(made[case](length), np.float32) for length in (40, 3, 77, 1, 200)]
    values = [*(progress_for_weights(one, 8) for one in weights), *balancing_progress(weights, 8)]
    lengths = [len(one) for one in values]
    rows = {
        "index": np.arange(sum(lengths)),
        "episode_index": np.repeat(np.arange(len(values)), lengths),
        "progress_sparse": np.concatenate(values),
    }
    found = lerobots_weights(write_rows(tmp_path / "w.parquet", rows), sum(map(len, weights)), 8, KAPPA)
    wanted = np.concatenate([np.append(one[:-1], 0) for one in weights])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_score_writes_files_from_which_lerobot_makes_the_papers_and_our_weights(store, dataset, run_command):
    words = ("lerobot_chunk=8", "horizon=8", f"lerobot={dataset}", f"progress_key={TRUE}")
    code, out, err = run_command("score", f"store={store.path}", *words)
    assert code == 0, err
    assert "--sample_weighting.kappa=1 and --policy.chunk_size=8" in out
    frames = sum(store.lengths.values())
    progress = progress_from_feature(store, TRUE)
    table = pq.read_table(dataset / PROGRESS_FILE)
    assert table.column_names == ["index", "episode_index", "frame_index", "progress_sparse", "progress_dense"]
    assert table["index"].to_pylist() == list(range(frames))
    papers = store_weights(progress, 8, "paper").weights
    for head in ("sparse", "dense"):
        found = lerobots_weights(dataset / PROGRESS_FILE, frames, 8, 0.01, head)
        np.testing.assert_allclose(found, np.concatenate(list(papers.values())), atol=1e-5)
    ours = store_weights(progress, 8, success={uuid: store.episode(uuid).success for uuid in store.uuids}).weights
    found = lerobots_weights(dataset / "robo_rm_weights_chunk_8.parquet", frames, 8, KAPPA)
    wanted = np.concatenate([np.append(one[:-1], 0) for one in ours.values()])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert len(np.unique(wanted)) > 3


def test_a_progress_file_comes_back_by_episode(store, dataset):
    from robo_rm.lerobot_files import write_lerobot_progress

    progress = progress_from_feature(store, TRUE)
    file = ProgressFile(write_lerobot_progress(store, dataset, progress))
    assert file.columns == ["progress_sparse", "progress_dense"]
    for uuid in store.uuids:
        np.testing.assert_array_equal(file.progress(store.episode(uuid)), progress[uuid])


def test_the_dataset_that_a_store_was_imported_from_is_known_without_our_own_columns(dataset, tmp_path, run_command):
    for file in (dataset / "meta/episodes").rglob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop([name for name in table.column_names if name.startswith("robo_rm.")]), file)
    (dataset / "meta/robo_rm.json").unlink()
    path = tmp_path / "back.zarr"
    code, _, err = run_command("import", "lerobot", f"source={dataset}", f"store={path}")
    assert code == 0, err
    code, _, err = run_command("score", f"store={path}", f"progress_key={TRUE}", f"lerobot={dataset}")
    assert code == 0, err
    back = DemoStore.open(path)
    file = ProgressFile(dataset / PROGRESS_FILE)
    for episode in back:
        np.testing.assert_allclose(file.progress(episode), episode[TRUE][:].reshape(-1), atol=1e-6)


def refused(run_command: Any, store: DemoStore, *words: str) -> str:
    code, _, err = run_command("score", f"store={store.path}", f"progress_key={TRUE}", *words)
    assert code == 2
    return str(err)


def test_a_dataset_of_other_episodes_or_no_dataset_is_refused_before_anything_is_written(
    store, dataset, tmp_path, run_command
):
    other = make_bright_store(tmp_path / "other.zarr", ("clean",))
    before = sorted(dataset.rglob("*"))
    assert "is neither an export of this store nor" in refused(run_command, other, f"lerobot={dataset}")
    assert "is not a LeRobot v3.0 dataset" in refused(run_command, other, f"lerobot={tmp_path}")
    few = f"lerobot={dataset}", "lerobot_chunk=5"
    assert "lerobot_chunk=5: LeRobot makes these weights for chunks of 6" in refused(run_command, store, *few)
    assert "lerobot_chunk needs lerobot=DIR" in refused(run_command, store, "lerobot_chunk=8")
    assert sorted(dataset.rglob("*")) == before


def test_an_export_that_holds_more_than_the_store_is_refused(store, dataset):
    from robo_datasets.lerobot_progress import DatasetEpisodes

    with pytest.raises(StoreError, match="has 4 episodes and the store has 3 of them"):
        DatasetEpisodes(dataset).check([store.episode(uuid) for uuid in store.uuids[:3]])


def test_a_short_chunk_is_refused():
    with pytest.raises(ConfigError, match="chunks of 6 actions and more"):
        balancing_progress([np.ones(5)], 5)
