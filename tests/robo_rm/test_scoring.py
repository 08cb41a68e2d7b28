"""`robo-rm score`: progress and weights into the store, with provenance, resumable, and clear refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness_model import BrightnessModel, load_it_everywhere, make_bright_store

from robo_core.errors import ModelError, StoreError
from robo_datasets import DemoStore
from robo_rm.scoring import (
    check_model_fits,
    example_episodes,
    model_hash,
    progress_from_feature,
    read_prediction,
    score_progress,
    score_weights,
)
from robo_rm.weights.options import Calibration
from robo_rm.weights.rabc import store_weights

KINDS = ("clean", "pause", "partial", "clean")


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    return make_bright_store(tmp_path / "demos.zarr", KINDS)


def _weigh(store: DemoStore, mode: str = "calibrated", horizon: int = 6) -> Any:
    progress = progress_from_feature(store, "simulator.progress")
    return score_weights(
        store, progress, {"source": "test"}, mode=mode, horizon=horizon, kappa=0.01, calibration=Calibration()
    )


def test_progress_goes_into_the_store_with_the_models_hash(store: DemoStore) -> None:
    derived = score_progress(BrightnessModel(), "abc", store)
    assert derived.provenance["model_sha256"] == "abc"
    again = DemoStore.open(store.path).derived("progress")
    for uuid in store.uuids:
        expected = BrightnessModel().predict(store.episode(uuid))
        stored = read_prediction(again, uuid)
        np.testing.assert_array_equal(stored.progress, expected.progress)
        np.testing.assert_array_equal(stored.stage_probabilities, expected.stage_probabilities)


def test_scoring_goes_on_where_it_stood_and_scores_only_what_is_new(store: DemoStore) -> None:
    class DiesInTheThird(BrightnessModel):
        seen = 0

        def predict(self, episode: Any, task: str | None = None) -> Any:
            type(self).seen += 1
            if self.seen == 3:
                raise KeyboardInterrupt
            return super().predict(episode, task)

    with pytest.raises(KeyboardInterrupt):
        score_progress(DiesInTheThird(), "abc", store)
    model = BrightnessModel()
    score_progress(model, "abc", store)
    lengths = [store.lengths[uuid] for uuid in store.uuids]
    assert model.frames_encoded == sum(lengths[2:])
    model = BrightnessModel()
    score_progress(model, "abc", store)
    assert model.frames_encoded == 0


def test_the_set_asked_for_last_is_the_one_that_training_reads(store: DemoStore) -> None:
    first, second = _weigh(store, "paper"), _weigh(store, "calibrated")
    assert store.derived("weights").provenance["mode"] == "calibrated"
    assert first.derived.path != second.derived.path
    _weigh(store, "paper")
    assert store.derived("weights").provenance["mode"] == "paper"
    score_progress(BrightnessModel(), "a", store)
    score_progress(BrightnessModel(gain=0.5), "b", store)
    score_progress(BrightnessModel(), "a", store)
    assert store.derived("progress").provenance["model_sha256"] == "a"


def test_weights_are_those_of_the_whole_store_and_say_where_they_came_from(store: DemoStore) -> None:
    scores = _weigh(store)
    progress = progress_from_feature(store, "simulator.progress")
    success = {uuid: store.episode(uuid).success for uuid in store.uuids}
    expected = store_weights(progress, 6, success=success)
    derived = store.derived("weights")
    for uuid in store.uuids:
        np.testing.assert_array_equal(derived.read(uuid)["weight"], expected.weights[uuid])
    provenance = derived.provenance
    assert provenance["horizon"] == 6
    assert provenance["kappa"] == pytest.approx(expected.statistics.kappa)
    assert provenance["calibration"]["quantile"] == 0.5
    assert provenance["progress"] == {"source": "test"}
    assert provenance["store_hash"] == store.content_hash()
    pause = scores.result.weights[store.uuids[1]]
    assert pause[24:32].max() == 0
    assert pause[:15].min() > 0.8


def test_a_changed_outcome_makes_new_weights(store: DemoStore) -> None:
    before = _weigh(store)
    store.set_success(store.uuids[0], False)
    after = _weigh(store)
    assert before.derived.path != after.derived.path


def test_a_model_that_does_not_fit_is_refused_with_the_difference(store: DemoStore) -> None:
    with pytest.raises(ModelError, match=r"stages \['reach', 'drop'\] are not those of .*demos\.zarr"):
        check_model_fits(BrightnessModel(stages=["reach", "drop"]), store)
    with pytest.raises(ModelError, match=r"reads observation\.images\.wrist, which .*demos\.zarr does not have"):
        check_model_fits(BrightnessModel(cameras=["observation.images.wrist"]), store)
    with pytest.raises(ModelError, match=r"30 frames/s and .* has 10"):
        check_model_fits(BrightnessModel(provenance={"fps": 30}), store)
    check_model_fits(BrightnessModel(provenance={"fps": 10}), store)


def test_a_prediction_that_is_no_number_is_refused_before_it_is_written(store: DemoStore) -> None:
    class SaysNothing(BrightnessModel):
        def estimate(self, levels: list[float]) -> tuple[float, np.ndarray, float]:
            progress, chances, uncertainty = super().estimate(levels)
            return progress, chances, uncertainty if len(levels) < 4 else float("nan")

    with pytest.raises(ModelError, match=rf"uncertainty is not a number at frame 3 of episode {store.uuids[0]}"):
        score_progress(SaysNothing(), "abc", store)
    assert store.uuids[0] not in store.derive("progress", {"x": 1})


def test_an_oracle_feature_must_be_one_number_a_frame(store: DemoStore) -> None:
    with pytest.raises(StoreError, match=r"no feature simulator\.reward"):
        progress_from_feature(store, "simulator.reward")
    with pytest.raises(StoreError, match="one number a frame"):
        progress_from_feature(store, "action")


def test_examples_show_every_kind_first(store: DemoStore) -> None:
    scores = _weigh(store)
    kinds = dict(zip(store.uuids, KINDS, strict=True))
    shown = [kinds[uuid] for uuid in example_episodes(scores.result, kinds)]
    assert set(shown[:3]) == {"clean", "pause", "partial"}
    assert shown[3] == "clean"
    assert len(example_episodes(scores.result, kinds, count=2)) == 2


def test_model_hash_follows_the_weights(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / "model.safetensors").write_bytes(b"123")
    first = model_hash(tmp_path)
    (tmp_path / "card.md").write_text("about")
    assert model_hash(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"124")
    assert model_hash(tmp_path) != first
    with pytest.raises(ModelError, match="holds no reward model"):
        model_hash(tmp_path / "nowhere")


class TestCommand:
    @pytest.fixture
    def run(
        self, store: DemoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Callable[..., Any]
    ) -> Callable[..., tuple[int, str, str]]:
        load_it_everywhere(monkeypatch)
        BrightnessModel().save(tmp_path / "rm")
        return lambda *words: run_command("score", f"store={store.path}", *words)

    def test_writes_weights_and_a_picture_and_says_what_they_amount_to(
        self, run: Callable[..., tuple[int, str, str]], store: DemoStore, tmp_path: Path
    ) -> None:
        code, printed, _ = run(f"model={tmp_path / 'rm'}", "horizon=6", f"out={tmp_path / 'scores'}")
        assert code == 0
        assert "effective frames" in printed
        assert "4 episodes' weights" in printed
        metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
        assert 0 < metrics["effective_fraction"] < 1
        assert metrics["episodes"] == 4
        assert (tmp_path / "scores" / "weights.png").read_bytes()[:4] == b"\x89PNG"
        assert "quantile: 0.5" in (tmp_path / "scores" / "config.yaml").read_text()
        assert store.derived("weights").provenance["progress"]["model_sha256"] == model_hash(tmp_path / "rm")

    def test_warns_when_the_paper_mode_is_plain_cloning(
        self, run_command: Callable[..., tuple[int, str, str]], tmp_path: Path
    ) -> None:
        make_bright_store(tmp_path / "clean.zarr", ["clean"] * 2, length=200)
        words = ("progress_key=simulator.progress", "mode=paper", "horizon=6")
        code, printed, _ = run_command("score", f"store={tmp_path / 'clean.zarr'}", *words)
        assert code == 0
        assert "warning: the weights are nearly uniform" in printed

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "give model=FOLDER"),
            (["model=a", "progress_key=b"], "not both"),
            (["progress_key=simulator.progress", "mode=papr"], "mode=papr is unknown"),
            (["progress_key=simulator.progress", "horizon=0"], "horizon=0"),
            (["progress_key=nothing"], "no feature nothing"),
            (["progress_key=simulator.progress", "calibration.quantle=1"], "calibration.quantile"),
        ],
    )
    def test_refuses_in_one_line(
        self, run: Callable[..., tuple[int, str, str]], words: list[str], message: str, store: DemoStore
    ) -> None:
        code, _, error = run(*words)
        assert code == 2
        assert message in error
        assert not list(store.path.glob("derived/*/*"))

    def test_names_a_store_that_is_not_there(self, run_command: Callable[..., Any], tmp_path: Path) -> None:
        code, _, error = run_command("score", f"store={tmp_path / 'no.zarr'}", "progress_key=x")
        assert code == 2
        assert "no.zarr" in error
