"""`robo-rm eval-reward`: metrics that follow from the data, advice that follows from the metrics, clear refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness_model import FRONT, BrightnessModel, load_it_everywhere, make_bright_store

from robo_core.errors import ConfigError, ModelError, StoreError
from robo_datasets import DemoStore
from robo_rm.evaluation.advice import METRICS, USES, advise, flat_metrics, metric_rows, missing_metrics
from robo_rm.evaluation.clips import Clip, backwards, paused, rewound
from robo_rm.evaluation.evaluate import Evaluation, choose_episodes, evaluate_reward_model, model_priors
from robo_rm.evaluation.flat_metrics import by_kind, compute_metrics
from robo_rm.evaluation.probes import WRONG_INSTRUCTION, another_task, probe_episode, why_left_out
from robo_rm.metrics import Interval
from robo_rm.reward_models.prediction import Prediction

KINDS = ("clean", "clean", "pause", "partial", "partial", "dazzle")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return make_bright_store(tmp_path_factory.mktemp("store") / "demos.zarr", KINDS)


@pytest.fixture(scope="module")
def evaluation(store: DemoStore) -> Evaluation:
    return evaluate_reward_model(_model(), store, resamples=200)


def _model(**options: Any) -> BrightnessModel:
    return BrightnessModel(provenance={"priors": [1 / 3, 1 / 3, 1 / 3], **options})


def test_a_nearly_right_model_gets_the_figures_it_deserves(evaluation: Evaluation) -> None:
    value = {name: metric.value for name, metric in evaluation.metrics.items()}
    assert set(value) == set(METRICS)
    assert value["voc"] > 0.98
    assert value["mse"] < 0.02
    assert value["stage_accuracy"] > 0.95
    assert value["boundary_f1"] > 0.8
    # The dazzled failure ends at .97: it passes some successes' threshold and is claimed in the last stage throughout.
    length = {kind: 60 + number for number, kind in enumerate(KINDS)}
    assert value["auroc"] == 1.0
    assert value["hallucination"] == pytest.approx(length["dazzle"] / (63 + 64 + 65), abs=0.02)
    assert value["stage_accuracy_failures"] == pytest.approx(1 - value["hallucination"], abs=0.02)
    # 3 successes and 2 partial failures called rightly, the dazzled one called a success: (5 - 1) / 6
    assert value["rho"] == pytest.approx(4 / 6)
    assert value["kendall_tau"] < 1
    # It keeps the brightest it has seen, so it does not follow a rewound clip; on a paused one nothing gets brighter.
    assert evaluation.by_probe["rewind"]["claimed"] > 0.1
    assert evaluation.by_probe["pause"]["claimed"] == 0
    assert 0 < value["hallucination_probes"] < evaluation.by_probe["rewind"]["claimed"]


def test_intervals_hold_their_figure_and_are_the_same_for_the_same_seed(
    evaluation: Evaluation, store: DemoStore
) -> None:
    for name, (value, low, high) in evaluation.metrics.items():
        assert math.isnan(low) or low - 1e-9 <= value <= high + 1e-9, name
    again = compute_metrics(evaluation.episodes, store.fps, resamples=200)
    assert all(again[name] == pytest.approx(metric, nan_ok=True) for name, metric in evaluation.metrics.items())


def test_each_kind_has_its_row(evaluation: Evaluation, store: DemoStore) -> None:
    rows = by_kind(evaluation.episodes, store.fps)
    assert set(rows) == {"clean", "pause", "partial", "dazzle"}
    assert rows["dazzle"]["beyond_truth"] == 1
    assert rows["dazzle"]["final_progress"] == pytest.approx(0.97, abs=0.01)
    assert rows["clean"]["episodes"] == rows["clean"]["successes"] == 2
    assert rows["clean"]["mse"] < rows["pause"]["mse"] + 0.05
    assert rows["clean"]["mse_low"] <= rows["clean"]["mse"] <= rows["clean"]["mse_high"]
    assert math.isnan(rows["dazzle"]["mse_low"]), "one episode has no interval"
    assert "auroc" not in rows["clean"], "successes alone have none"
    assert rows["clean"]["voc"] > 0.98
    everything = by_kind(evaluation.episodes, store.fps, "task")["place it"]
    assert everything["auroc_low"] <= everything["auroc"] <= everything["auroc_high"]


def test_frames_of_an_unfinished_segment_count_for_stages_and_not_for_errors(evaluation: Evaluation) -> None:
    partial = next(episode for episode in evaluation.episodes if episode.kind == "partial")
    cut_off = partial.stage == partial.stage[-1]
    assert np.isnan(partial.label[cut_off]).all()
    assert np.isfinite(partial.label[~cut_off]).all()


def test_without_failures_the_failure_side_is_unknown_and_said_to_be(store: DemoStore, tmp_path: Path) -> None:
    good = make_bright_store(tmp_path / "good.zarr", ["clean"] * 3)
    result = evaluate_reward_model(_model(), good, resamples=50)
    for name in ("auroc", "hallucination", "fpr_at_recall", "stage_accuracy_failures", "kendall_tau"):
        assert math.isnan(result.metrics[name].value), name
    advice = advise(result)
    by_use = {item.use: item for item in advice if item.use}
    assert by_use["stopping"].mark == "care"
    assert "is not known" in by_use["stopping"].text
    assert "auroc, wanted at least 0.95, cannot be computed: none of 3 episodes is marked as a failure" in (
        by_use["stopping"].text
    )
    assert any("No evaluated episode is marked as a failure" in item.text for item in advice)
    flat = flat_metrics(result, advice)
    assert flat["failures"] == 0
    assert "auroc" not in [row[0] for row in metric_rows(result)]
    told = missing_metrics(result)
    assert "hallucination, stage_accuracy_failures, rho (none of 3 episodes is marked as a failure)" in told
    assert flat["successes"] == 3


class TestClips:
    def test_orders_of_probe_clips(self) -> None:
        assert paused(8).tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
        assert rewound(10).tolist() == [0, 1, 2, 3, 4, 5, 4, 3, 2, 1]
        assert rewound(10, at=0.3).tolist() == [0, 1, 2, 1, 0, 0, 0, 0, 0, 0]
        assert backwards(3).tolist() == [2, 1, 0]
        assert paused(1).tolist() == rewound(1).tolist() == [0]

    def test_a_clip_reads_like_an_episode_in_its_own_order(self, store: DemoStore) -> None:
        episode = store[0]
        order = rewound(episode.length)
        clip = Clip(episode, order, [FRONT])
        whole = episode[FRONT][:]
        np.testing.assert_array_equal(clip[FRONT][:], whole[order])
        np.testing.assert_array_equal(clip[FRONT][30:50:3], whole[order][30:50:3])
        np.testing.assert_array_equal(clip[FRONT][[45, 3]], whole[order][[45, 3]])
        np.testing.assert_array_equal(clip[FRONT][50], whole[order][50])
        assert FRONT in clip
        assert "action" not in clip
        assert clip[FRONT].shape == whole.shape

    def test_a_model_that_follows_the_picture_claims_nothing_on_clips(self, store: DemoStore) -> None:
        class Follows(BrightnessModel):
            def estimate(self, levels: list[float]) -> tuple[float, np.ndarray, float]:
                return super().estimate(levels[-1:])

        result = evaluate_reward_model(Follows(provenance={"priors": [1 / 3] * 3}), store, resamples=20)
        assert result.metrics["hallucination_probes"].value < 0.05
        assert result.metrics["voc_reversed"].value < -0.95


class TestWrongInstruction:
    def test_is_another_task_of_the_store(self) -> None:
        assert another_task("b", ["c", "b", "a", ""]) == "c"
        assert another_task("c", ["c", "b", "a"]) == "a"
        assert another_task("unheard", ["a", "b"]) == "a"
        assert another_task("b", ["b"]) is None
        assert another_task("", ["a", "b"]) is None

    def test_is_left_out_with_the_reason(self, evaluation: Evaluation, store: DemoStore) -> None:
        assert evaluation.probes_left_out == {WRONG_INSTRUCTION: "the store knows one task only"}
        counts = probe_episode(_model(), store[0], store.fps, ["place it", "fold it"]).counts
        assert WRONG_INSTRUCTION not in counts, "the model answers the same to every instruction"
        assert "same to every" in why_left_out(["place it", "fold it"], list(counts))[WRONG_INSTRUCTION]

    def test_counts_every_stage_beyond_the_first(self, store: DemoStore) -> None:
        class Reads(BrightnessModel):
            def predict(self, episode: Any, task: str | None = None) -> Prediction:
                said = super().predict(episode)
                dim = 1.0 if task in (None, "place it") else 0.5
                return Prediction(dim * said.progress, said.stage_probabilities, said.uncertainty)

        count = probe_episode(Reads(), store[0], store.fps, ["place it", "fold it"]).counts[WRONG_INSTRUCTION]
        assert count.frames == store[0].length
        assert count.claimed == pytest.approx(2 / 3 * count.frames, abs=1), "its stages do not heed the instruction"


class TestAdvice:
    def _with(self, evaluation: Evaluation, **values: Interval) -> dict[str, str]:
        good = {name: Interval(1, 1, 1) if f.better == "high" else Interval(-1, -1, -1) for name, f in METRICS.items()}
        changed = Evaluation(
            stages=evaluation.stages,
            fps=evaluation.fps,
            episodes=evaluation.episodes,
            metrics={**good, **values},
            by_kind={},
            speed=evaluation.speed,
            scope="",
        )
        return {item.use: f"{item.mark}: {item.text}" for item in advise(changed) if item.use}

    def test_trusts_what_keeps_every_bound(self, evaluation: Evaluation) -> None:
        assert all(text.startswith("yes") for text in self._with(evaluation).values())

    def test_names_the_figure_that_breaks_a_bound_and_spares_the_other_uses(self, evaluation: Evaluation) -> None:
        told = self._with(evaluation, fpr_at_recall=Interval(0.4, 0.2, 0.6))
        assert told["stopping"].startswith("no")
        assert "fpr_at_recall is 0.400 (wanted at most 0.1)" in told["stopping"]
        assert told["weighting"].startswith("yes")

    def test_is_careful_where_the_interval_reaches_over_the_bound(self, evaluation: Evaluation) -> None:
        told = self._with(evaluation, auroc=Interval(0.97, 0.80, 1.0))
        assert told["stopping"].startswith("care")
        assert "may be 0.800 with other episodes" in told["stopping"]

    @pytest.mark.parametrize("use", USES)
    def test_every_bound_matters(self, evaluation: Evaluation, use: str) -> None:
        for name in USES[use][1]:
            bad = Interval(-1, -1, -1) if METRICS[name].better == "high" else Interval(1, 1, 1)
            assert self._with(evaluation, **{name: bad})[use].startswith("no")

    def test_names_the_weakest_stage(self, evaluation: Evaluation) -> None:
        texts = [item.text for item in advise(evaluation)]
        assert any("weakest stage is 'reach'" in text and "taken for 'place'" in text for text in texts)


class TestChoosing:
    def test_held_out_episodes_come_first_then_unseen_ones(self, store: DemoStore) -> None:
        uuids = store.uuids
        held = _model(train_uuids=uuids[:3], holdout_uuids=uuids[3:5])
        assert choose_episodes(held, store)[0] == uuids[3:5]
        elsewhere = _model(train_uuids=uuids[:3], holdout_uuids=["other"])
        assert choose_episodes(elsewhere, store)[0] == uuids[3:]
        assert choose_episodes(_model(), store)[0] == uuids
        chosen, words, seen = choose_episodes(held, store, "all")
        assert (chosen, seen) == (uuids, True)
        assert "3 of them trained on" in words

    def test_a_model_that_knows_the_whole_store_is_not_evaluated_on_it(self, store: DemoStore) -> None:
        with pytest.raises(StoreError, match=r"trained on all 6 episodes .*holdout=8"):
            choose_episodes(_model(train_uuids=store.uuids), store)
        with pytest.raises(ConfigError, match="episodes=some"):
            choose_episodes(_model(), store, "some")


def test_refuses_what_it_cannot_evaluate(store: DemoStore, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="stages"):
        evaluate_reward_model(BrightnessModel(stages=["a", "b", "c"]), store)
    with pytest.raises(ModelError, match=r"observation\.images\.wrist"):
        evaluate_reward_model(
            BrightnessModel(cameras=["observation.images.wrist"], provenance={"priors": [1 / 3] * 3}), store
        )
    with pytest.raises(ModelError, match="priors"):
        model_priors(BrightnessModel(provenance={"priors": [0.5, 0.5]}))
    unlabelled = make_bright_store(tmp_path / "unlabelled.zarr", ["clean"])
    unlabelled.set_stages(unlabelled.uuids[0], np.full(unlabelled[0].length, -1))
    with pytest.raises(StoreError, match=r"none of the 1 episodes .* has stage labels"):
        evaluate_reward_model(_model(), unlabelled)
    nameless = make_bright_store(tmp_path / "nameless.zarr", [], stages=())
    with pytest.raises(StoreError, match="holds no episode"):
        evaluate_reward_model(_model(), nameless)


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        load_it_everywhere(monkeypatch)
        _model().save(tmp_path / "rm")
        return tmp_path

    def test_prints_and_writes_the_same_evaluation(
        self, folder: Path, store: DemoStore, run_command: Callable[..., Any]
    ) -> None:
        words = (f"model={folder / 'rm'}", f"store={store.path}", f"out={folder / 'report'}", "resamples=50")
        code, printed, _ = run_command("eval-reward", *words)
        assert code == 0
        assert printed.index("hallucination") < printed.index("voc")
        assert "Do not trust it for shaping a reward: hallucination" in printed
        metrics = json.loads((folder / "report" / "metrics.json").read_text())
        for key in ("mse", "mse_low", "voc", "stage_accuracy", "auroc", "hallucination", "trust_weighting"):
            assert key in metrics
        assert metrics["failures"] == 3
        assert metrics["encodes_per_step"] == 1
        assert metrics["by_kind.dazzle.beyond_truth"] == 1
        assert metrics["trust_weighting"] == "no"
        assert "robo-rm score" not in printed, "weights of a model that is not to be trusted for them"
        assert f"next: no weights of this model (see above): {folder / 'report' / 'report.html'}" in printed
        page = (folder / "report" / "report.html").read_text()
        assert "http" not in page.replace("http-equiv", "")
        assert page.index("Can I trust it?") < page.index("Worst cases") < page.index("Stages")
        assert page.count("data:image/jpeg") >= 4
        first_case = page[page.index("Worst cases") :]
        assert "Do not trust it" in page
        assert len(first_case) > 10_000

    def test_same_seed_same_metrics(self, folder: Path, store: DemoStore, run_command: Callable[..., Any]) -> None:
        found = []
        for name in ("a", "b"):
            words = (f"model={folder / 'rm'}", f"store={store.path}", f"out={folder / name}", "resamples=50")
            assert run_command("eval-reward", *words)[0] == 0
            metrics = json.loads((folder / name / "metrics.json").read_text())
            found.append({k: v for k, v in metrics.items() if k not in ("frames_per_second", "stream_ms")})
        assert found[0] == found[1]

    @pytest.mark.parametrize(
        ("words", "message"),
        [(["episodes=some"], "episodes=some"), (["resamples=1"], "resamples=1"), (["modle=x"], "model")],
    )
    def test_refuses_in_one_line_and_writes_nothing(
        self, words: list[str], message: str, folder: Path, store: DemoStore, run_command: Callable[..., Any]
    ) -> None:
        given = (f"model={folder / 'rm'}", f"store={store.path}", f"out={folder / 'report'}")
        code, _, error = run_command("eval-reward", *given, *words)
        assert code == 2
        assert message in error
        assert not (folder / "report").exists()
