"""Several models on the same episodes: the better one first, differences paired, the page and the numbers agree."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from brightness_model import BrightnessModel, load_it_everywhere, make_bright_store

from robo_core.errors import ConfigError, StoreError
from robo_datasets import DemoStore
from robo_rm.commands.leaderboard import distinct_names
from robo_rm.evaluation.evaluate import evaluate_reward_model
from robo_rm.evaluation.leaderboard import board_rows, common_episodes, compare, most_disputed
from robo_rm.evaluation.leaderboard_report import verdicts

KINDS = ("clean", "clean", "pause", "partial", "partial", "dazzle", "clean", "partial")
PRIORS = {"priors": [1 / 3, 1 / 3, 1 / 3]}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DemoStore:
    return make_bright_store(tmp_path_factory.mktemp("store") / "demos.zarr", KINDS)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> DemoStore:
    """So many that a difference can be more than chance among all that are compared."""
    return make_bright_store(tmp_path_factory.mktemp("store") / "many.zarr", [*["clean"] * 14, *["partial"] * 6])


@pytest.fixture(scope="module")
def probes(tmp_path_factory) -> DemoStore:
    """An empty, bright scene: nothing has been achieved in it."""
    store = make_bright_store(tmp_path_factory.mktemp("probes") / "probes.zarr", ["dazzle", "dazzle"])
    for uuid in store.uuids:
        store.set_stages(uuid, np.zeros(store.episode(uuid).length, dtype=np.int16))
    return store


def right(**provenance) -> BrightnessModel:
    return BrightnessModel(provenance={**PRIORS, **provenance})


def dim(**provenance) -> BrightnessModel:
    return BrightnessModel(gain=0.4, provenance={**PRIORS, **provenance})


def test_the_better_model_comes_first_with_a_paired_difference(many):
    board = compare({"dim": dim(), "right": right()}, many, probes=0, resamples=200)
    assert board.best == "right"
    assert board.places["right"] < board.places["dim"]
    worse = board.differences["dim"]["mse"]
    assert worse.value > 0
    assert worse.low > 0
    value = {name: e.metrics["mse"].value for name, e in board.evaluations.items()}
    assert worse.value == pytest.approx(value["dim"] - value["right"])
    assert board.surely("dim", "mse")
    assert next(row for row in board_rows(board) if row[0] == "mse")[2].endswith("*")
    marks = dict(verdicts(board))
    assert any("ahead of dim" in text and "mse" in text for _, text in verdicts(board))
    assert "know" in marks


def test_few_episodes_make_no_difference_sure(store):
    board = compare({"dim": dim(), "right": right()}, store, probes=0, resamples=200)
    assert board.differences["dim"]["mse"].low > 0, "every episode says so"
    assert not board.surely("dim", "mse"), "but five successes may do so by chance, among all that is compared"
    assert any("cannot be distinguished on these 8 episodes" in text for _, text in verdicts(board))


class Noisy(BrightnessModel):
    """Right but for a noise of its own: alike models that differ by chance alone."""

    def __init__(self, seed: int) -> None:
        super().__init__(provenance=PRIORS)
        self.seed = seed

    def predict(self, episode, task=None):
        said = super().predict(episode, task)
        noise = np.random.default_rng([self.seed, episode.length]).normal(0, 0.1)
        return replace(said, progress=np.clip(said.progress + noise, 0, 1).astype(np.float32))


def test_alike_models_get_no_star_however_many_are_compared(many):
    board = compare({f"m{seed}": Noisy(seed) for seed in range(4)}, many, probes=0, resamples=50)
    by_interval = [
        (name, metric)
        for name, part in board.differences.items()
        for metric, found in part.items()
        if np.isfinite(found.low) and (found.low > 0 or found.high < 0)
    ]
    starred = [(name, metric) for name, part in board.chances.items() for metric in part if board.surely(name, metric)]
    assert by_interval, "uncorrected intervals would call some of them different"
    assert starred == []


def test_all_models_are_measured_by_one_truth(many):
    early = BrightnessModel(provenance={"priors": [0.8, 0.1, 0.1]})
    board = compare({"early": early, "right": right()}, many, probes=0, resamples=20)
    assert board.differences[board.names[1]]["mse"].value == 0, "they say the same and have other priors"
    first, second = (board.evaluations[name].episodes for name in board.names)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.label, other.label)


def test_a_model_beside_itself_differs_in_nothing(store):
    board = compare({"one": right(), "two": right()}, store, resamples=100)
    for interval in board.differences["two"].values():
        assert np.isnan(interval.value) or interval == (0, 0, 0) or (interval.value == 0 and np.isnan(interval.low))
    assert any("cannot be distinguished" in text for _, text in verdicts(board))


def test_only_episodes_that_no_model_has_learned_from_are_evaluated(store):
    uuids = store.uuids
    first = right(train_uuids=uuids[:2], holdout_uuids=uuids[2:6])
    second = right(train_uuids=uuids[:3], holdout_uuids=uuids[3:5])
    assert common_episodes({"a": first, "b": second}, store)[0] == uuids[3:5]
    third = right(train_uuids=uuids[3:5])
    assert common_episodes({"a": first, "c": third}, store)[0] == [uuids[2], uuids[5]]
    with pytest.raises(StoreError, match="none has seen"):
        common_episodes({"a": right(train_uuids=uuids[:5]), "b": right(train_uuids=uuids[5:])}, store)
    with pytest.raises(ConfigError, match="two models at least"):
        compare({"a": first}, store)


def test_episodes_that_calibrated_a_model_do_not_evaluate_it(store):
    uuids = store.uuids
    model = right(train_uuids=uuids[:2], holdout_uuids=uuids[2:6], calibration_uuids=uuids[2:4])
    assert common_episodes({"a": model, "b": right()}, store)[0] == uuids[4:6]


def test_the_most_disputed_episode_is_the_one_on_which_the_curves_part(store):
    board = compare({"right": right(), "dim": dim()}, store, probes=0, resamples=20)
    kinds = {e.uuid: e.kind for e in board.evaluations["right"].episodes}
    assert kinds[most_disputed(board, 1)[0]] == "dazzle"


def test_recorded_probes_count_as_clips_do(store, probes):
    without = evaluate_reward_model(right(), store, resamples=50)
    result = evaluate_reward_model(right(), store, probe_store=probes, resamples=50)
    assert {"pause", "rewind", "hover", "shuffled", "frozen camera", "dazzle"} == set(result.by_probe)
    assert result.by_probe["dazzle"]["claimed"] == 1
    assert result.by_probe["pause"] == without.by_probe["pause"]
    assert result.metrics["hallucination_probes"].value > without.metrics["hallucination_probes"].value
    counted = [row for name, row in result.by_probe.items() if name != "shuffled"]
    total = sum(row["frames"] for row in counted)
    claimed = sum(row["frames"] * row["claimed"] for row in counted)
    assert result.metrics["hallucination_probes"].value == pytest.approx(claimed / total)


def test_names_tell_the_folders_apart():
    assert distinct_names(["/a/rm", "/b/rm"]) == ["a/rm", "b/rm"]
    assert distinct_names(["/a/x", "/a/y"]) == ["x", "y"]
    with pytest.raises(ConfigError, match="two different model folders"):
        distinct_names(["/a/x", "/a/../a/x"])


def test_the_verb_writes_page_and_numbers(many, probes, tmp_path, run_command, monkeypatch):
    load_it_everywhere(monkeypatch)
    right().save(tmp_path / "right")
    dim().save(tmp_path / "dim")
    words = [
        f"models=[{tmp_path / 'dim'},{tmp_path / 'right'}]",
        f"store={many.path}",
        f"probe_store={probes.path}",
        f"out={tmp_path / 'board'}",
        "resamples=50",
        "probes=3",
    ]
    code, printed, errors = run_command("leaderboard", *words)
    assert code == 0, errors
    metrics = json.loads((tmp_path / "board" / "metrics.json").read_text())
    assert metrics["best"] == "right"
    assert metrics["dim.mse_minus_best"] == pytest.approx(metrics["dim.mse"] - metrics["right.mse"])
    assert metrics["dim.mse_minus_best_low"] > 0
    assert metrics["dim.mse_minus_best_p"] <= 0.05
    page = (tmp_path / "board" / "report.html").read_text()
    assert page.index("Which one?") < page.index("The metrics") < page.index("Where nothing happens")
    assert page.count("data:image/jpeg") == 5
    assert "http" not in page.replace("http-equiv", "")
    assert "ahead of dim" in printed
    code, _, errors = run_command("leaderboard", f"models=[{tmp_path / 'dim'}]", *words[1:])
    assert code == 2
    assert "models=[rm_a,rm_b]" in errors


def test_epic_is_that_of_the_definition(store):
    result = evaluate_reward_model(right(), store, probes=0, resamples=20)
    said = np.concatenate([e.prediction.progress for e in result.episodes]).astype(np.float64)
    true = np.concatenate([e.simulator for e in result.episodes]).astype(np.float64)
    assert result.metrics["epic"].value == pytest.approx(np.sqrt((1 - np.corrcoef(said, true)[0, 1]) / 2), abs=1e-6)


def test_each_task_has_its_row(store, tmp_path):
    result = evaluate_reward_model(right(), store, probes=0, resamples=20)
    assert list(result.by_task) == ["place it"]
    assert result.by_task["place it"]["episodes"] == len(KINDS)


def test_still_clips_keep_away_from_changes_of_stage():
    from robo_rm.evaluation.probes import _clear_of_changes

    stage = np.repeat([0, 1, 2], [20, 4, 26])
    assert _clear_of_changes(stage, 24, 5) == 29
    assert _clear_of_changes(stage, 40, 5) == 40
    assert _clear_of_changes(np.zeros(10, dtype=np.int64), 5, 3) == 5
    assert _clear_of_changes(np.arange(10), 5, 3) in (0, 5, 9)


def test_clips_of_one_episode_give_no_interval(store):
    board = compare({"right": right(), "dim": dim()}, store, probes=1, resamples=20)
    assert np.isnan(board.differences["dim"]["voc_reversed"].low)
    assert np.isnan(board.evaluations["right"].metrics["hallucination_probes"].low)
    assert not any("hallucination_probes" in text for _, text in verdicts(board))
