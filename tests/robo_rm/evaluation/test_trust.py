"""Statements about trust: right, or said to be unknown, for few episodes, one outcome, ties, and any order."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from brightness_model import FRONT, BrightnessModel, load_it_everywhere, make_bright_store
from scipy.stats import binomtest

from robo_core.errors import StoreError
from robo_datasets import DemoStore
from robo_rm.evaluation.advice import METRICS, USES, Advice, advise, flat_metrics, metric_rows, missing_metrics
from robo_rm.evaluation.evaluate import Evaluation, Speed, evaluate_reward_model, grade_of
from robo_rm.evaluation.flat_metrics import EvaluatedEpisode, by_kind, compute_metrics
from robo_rm.evaluation.probes import Count, ProbeClips
from robo_rm.evaluation.support import needed_for, support_of
from robo_rm.reward_models.prediction import Prediction

T = 30


def episode(
    name: int | str,
    success: bool | None,
    says: np.ndarray | float,
    *,
    length: int = T,
    reached: tuple[float, float] | None = None,
    grade: float | None = None,
    probed: bool = False,
) -> EvaluatedEpisode:
    """A rollout in three stages of which the model says ``says``, its progress or where that ends."""
    progress = np.linspace(0, says, length) if isinstance(says, float) else np.asarray(says, float)
    true = np.linspace(0, 1, length) if success else np.linspace(0, 0.2, length)
    stage = np.minimum((true * 3).astype(np.int64), 2)
    said = np.full((length, 3), 0.02, np.float32)
    said[np.arange(length), np.minimum((progress * 3).astype(np.int64), 2)] = 0.96
    clips = ProbeClips()
    if probed:
        clips = ProbeClips(np.linspace(1, 0, length).astype(np.float32), {"pause": Count(0, 20)})
    return EvaluatedEpisode(
        uuid=str(name),
        kind="x",
        success=success,
        prediction=Prediction(progress.astype(np.float32), said, np.zeros(length, np.float32)),
        stage=stage,
        label=true.astype(np.float32) if success else np.full(length, np.nan, np.float32),
        clips=clips,
        reached=reached,
        grade=grade,
    )


def evaluation(evaluated: Sequence[EvaluatedEpisode], **more) -> Evaluation:
    values = {
        "stages": ["a", "b", "c"],
        "fps": 10,
        "episodes": list(evaluated),
        "metrics": compute_metrics(evaluated, 10, resamples=200),
        "by_kind": by_kind(evaluated, 10, resamples=20),
        "speed": Speed(),
        "scope": "",
    }
    return Evaluation(**{**values, **more})


def uses(evaluated: Sequence[EvaluatedEpisode]) -> dict[str, Advice]:
    return {item.use: item for item in advise(evaluation(evaluated)) if item.use}


def mixed(good: int, bad: int, **options) -> list[EvaluatedEpisode]:
    """A model without a fault."""
    return [episode(n, n < good, 1.0 if n < good else 0.2, **options) for n in range(good + bad)]


class TestFewEpisodes:
    @pytest.mark.parametrize("bad", [1, 2, 5, 10])
    def test_no_use_is_trusted_by_few_failures(self, bad: int) -> None:
        told = uses(mixed(12, bad, probed=True))
        assert all(item.mark != "yes" for item in told.values())
        assert "is not known" in told["stopping"].text
        said = "1 failure, 17 needed" if bad == 1 else f"{bad} failures, 17 needed"
        assert said in told["weighting"].text

    def test_the_interval_of_false_positives_is_the_exact_one(self) -> None:
        for bad in (1, 2, 7):
            found = compute_metrics(mixed(9, bad), 10, resamples=100)["fpr_at_recall"]
            assert found.value == 0
            assert found.high == pytest.approx(binomtest(0, bad).proportion_ci().high)

    def test_so_many_as_are_said_to_be_needed_are_enough(self) -> None:
        for use, (_, bounds) in USES.items():
            count = max(needed_for(name, bound) for name, bound in bounds.items())
            assert uses(mixed(count, count, probed=True))[use].mark == "yes", use
            assert uses(mixed(count - 1, count - 1, probed=True))[use].mark != "yes", use

    def test_no_figure_at_0_or_1_has_a_closed_interval(self) -> None:
        found = compute_metrics(mixed(6, 4, probed=True), 10, resamples=100)
        for name in ("auroc", "fpr_at_recall", "hallucination", "hallucination_probes", "stage_accuracy", "rho"):
            assert found[name].high - found[name].low > 0.1, name

    def test_episodes_in_the_same_order_leave_the_interval_of_the_order_open(self) -> None:
        for good in (8, 20):
            found = compute_metrics(mixed(good, 4, probed=True), 10, resamples=100)
            assert found["voc"].value == 1
            assert found["voc"].low == pytest.approx(good / (good + 1))
        assert "voc is 1.000 (wanted at least 0.9), but may be 0.889 with other episodes: 8 episodes" in (
            uses(mixed(8, 20))["weighting"].text
        )

    def test_a_model_that_errs_once_is_not_trusted_more_than_one_that_never_does(self) -> None:
        good = compute_metrics(mixed(40, 40), 10, resamples=200)
        erring = mixed(40, 39)
        erring.append(episode("last", False, np.r_[np.linspace(0, 0.2, T - 1), 0.9]))
        assert compute_metrics(erring, 10, resamples=200)["hallucination"].high >= good["hallucination"].high

    def test_three_successes_among_many_failures_are_few(self) -> None:
        told = uses(mixed(3, 50, probed=True))
        assert all(item.mark != "yes" for item in told.values())
        assert "voc is 1.000 (wanted at least 0.9), but without an interval: 3 episodes" in told["weighting"].text

    def test_one_episode_is_no_ground_for_trust(self) -> None:
        told = uses([episode(0, True, 1.0, probed=True)])
        assert {item.mark for item in told.values()} == {"care"}
        assert "without an interval" in told["weighting"].text or "voc" in told["weighting"].text


class TestOutcomes:
    def test_rho_counts_failures_without_a_simulator(self) -> None:
        always = [episode(n, n < 8, np.linspace(0.9, 1, T)) for n in range(16)]
        assert compute_metrics(always, 10, resamples=50)["rho"].value == 0
        assert compute_metrics(mixed(8, 8), 10, resamples=50)["rho"].value == 1

    def test_the_stage_a_failure_reached_decides_what_it_may_be_called(self) -> None:
        for reached, says, right in (
            (None, 0.1, 1), (None, 0.6, 1), (None, 0.9, -1),
            ((0.0, 0.3), 0.1, 1), ((0.0, 0.3), 0.6, -1),
            ((0.5, 0.7), 0.6, 1), ((0.5, 0.7), 0.1, -1),
            ((0.2, 0.5), 0.1, 1), ((0.2, 0.5), 0.6, 1),
            ((0.8, 1.0), 0.95, -1),
        ):  # fmt: skip
            found = compute_metrics([episode(0, True, 1.0), episode(1, False, says, reached=reached)], 10, resamples=20)
            assert found["rho"].value == (1 + right) / 2, (reached, says)

    def test_a_grade_between_is_partial_and_puts_episodes_in_order(self) -> None:
        graded = [
            episode(0, True, 0.95),
            episode(1, None, 0.5, grade=0.5),
            episode(2, None, 0.9, grade=0.5),
            episode(3, False, 0.1),
        ]
        found = compute_metrics(graded, 10, resamples=20)
        assert found["rho"].value == pytest.approx((3 - 1) / 4)
        assert found["grade_tau"].value == pytest.approx(5 / math.sqrt(6 * 5))
        assert math.isnan(compute_metrics(mixed(3, 3), 10, resamples=20)["grade_tau"].value)

    @pytest.mark.parametrize(
        ("attributes", "grade"),
        [({}, None), ({"grade_value": 0.5}, 0.5), ({"grade": "partial"}, 0.5), ({"grade": 0.25}, 0.25),
         ({"grade": "odd"}, None), ({"grade_value": 7}, None), (None, None)],
    )  # fmt: skip
    def test_grades_are_read_from_the_episode(self, attributes: dict | None, grade: float | None) -> None:
        assert grade_of(type("E", (), {"attributes": attributes})()) == grade

    @pytest.mark.parametrize(
        ("outcomes", "reason"),
        [
            ([True] * 6, "none of 6 episodes is marked as a failure"),
            ([False] * 6, "none of 6 episodes is marked as a success"),
            ([None] * 6, "unknown of all 6 episodes"),
            ([True, None, None], "none of 3 episodes is marked as a failure (2 of unknown outcome)"),
        ],
    )
    def test_what_is_missing_has_its_reason(self, outcomes: list[bool | None], reason: str) -> None:
        evaluated = [episode(n, outcome, 0.7) for n, outcome in enumerate(outcomes)]
        result = evaluation(evaluated)
        assert reason in missing_metrics(result)
        told = advise(result)
        assert reason in {item.use: item.text for item in told}["stopping"]
        assert all(item.mark != "yes" for item in told if item.use)
        assert any("unknown" in item.text for item in told if not item.use) == (None in outcomes)
        shown = " ".join(" ".join(row) for row in metric_rows(result)) + missing_metrics(result)
        assert "nan" not in shown + " ".join(item.text for item in told)
        assert "None" not in shown

    def test_no_reason_names_what_is_there(self) -> None:
        evaluated = mixed(4, 4)
        absent = {"grade_tau", "kendall_tau", "epic", "hallucination_probes", "voc_reversed"}
        assert {name for name, s in support_of(evaluated, probes=0).items() if s.why_missing} == absent
        result = evaluation(evaluated, probes=0)
        told = missing_metrics(result)
        assert "hallucination_probes, voc_reversed (no clip was asked for (probes=0))" in told
        assert "successes" not in told

    def test_probes_that_were_asked_for_are_said_to_lack_episodes(self) -> None:
        told = missing_metrics(evaluation([episode(0, False, 0.1)], probes=6))
        assert "no episode that did not fail to make clips from" in told

    def test_every_figure_has_its_number_of_episodes(self) -> None:
        result = evaluation(mixed(5, 3, probed=True))
        flat = flat_metrics(result, advise(result))
        assert {f"{name}_episodes" for name in METRICS} <= set(flat)
        assert (flat["auroc_episodes"], flat["hallucination_episodes"], flat["voc_episodes"]) == (8, 3, 5)
        over = {row[0]: row[3] for row in metric_rows(result)}
        assert over["auroc"] == "5 successes and 3 failures"
        assert over["hallucination"] == "3 failures"


class TestOddEpisodes:
    @pytest.mark.parametrize("length", [1, 2])
    def test_episodes_of_one_or_two_frames(self, length: int) -> None:
        evaluated = [episode(n, n < 3, np.full(length, 0.9 if n < 3 else 0.1), length=length) for n in range(6)]
        found = compute_metrics(evaluated, 10, resamples=50)
        assert found["auroc"].value == 1
        assert math.isnan(found["voc"].value)
        assert "voc" in missing_metrics(evaluation(evaluated))

    def test_ties_count_half_and_no_order_matters(self) -> None:
        rng = np.random.default_rng(0)
        tied = [episode(n, n % 2 == 0, float(rng.integers(0, 3)) / 3 + 0.1) for n in range(20)]
        found = compute_metrics(tied, 10, resamples=100)
        turned = compute_metrics(tied[::-1], 10, resamples=100)
        for name, metric in found.items():
            assert turned[name].value == pytest.approx(metric.value, nan_ok=True), name
        assert compute_metrics([episode(n, n < 3, 0.9) for n in range(6)], 10, resamples=50)["auroc"].value == 0.5

    def test_a_threshold_of_few_successes_says_how_many_others_pass_it(self) -> None:
        found = compute_metrics(
            [*(episode(n, True, 0.7 + n / 20) for n in range(4)), episode("f", False, 0.1)], 10, resamples=50
        )
        assert found["recall_at_threshold"].value == pytest.approx(0.75)


class TestStores:
    def model(self) -> BrightnessModel:
        return BrightnessModel(provenance={"priors": [1 / 3] * 3})

    def test_failures_of_a_real_store_count_by_the_stage_they_reached(self, tmp_path: Path) -> None:
        store = make_bright_store(tmp_path / "s.zarr", ["clean", "clean", "partial", "dazzle"])
        features = {key: value for key, value in store.features.items() if key != "simulator.progress"}
        real = DemoStore.create(tmp_path / "real.zarr", features=features, fps=10, stages=store.stages)
        for source in store:
            with real.writer(task=source.task, success=source.success) as writer:
                for t in range(source.length):
                    writer.add({k: source[k][t] for k in features}, timestamp=t / 10, stage=int(source.stage[t]))
        result = evaluate_reward_model(self.model(), real, probes=0, resamples=50)
        # Two successes and the partial failure are called rightly, the dazzled one is called a success.
        assert result.metrics["rho"].value == pytest.approx((3 - 1) / 4)

    def test_outcomes_alone_are_evaluated_where_there_are_no_stages(self, tmp_path: Path) -> None:
        store = make_bright_store(tmp_path / "s.zarr", ["clean", "clean", "partial", "partial"])
        for uuid in store.uuids:
            store.set_stages(uuid, np.full(store.episode(uuid).length, -1))
        result = evaluate_reward_model(self.model(), DemoStore.open(store.path), resamples=50)
        assert result.metrics["auroc"].value == 1
        assert "no failure has stage labels" in missing_metrics(result)
        advise(result)

    @pytest.mark.parametrize("outcome", [True, False, None])
    def test_one_outcome_alone_reports_and_says_what_is_missing(
        self, outcome: bool | None, tmp_path: Path, run_command, monkeypatch
    ) -> None:
        load_it_everywhere(monkeypatch)
        self.model().save(tmp_path / "rm")
        store = make_bright_store(tmp_path / "s.zarr", ["clean", "pause", "partial"])
        for uuid in store.uuids:
            store.set_success(uuid, outcome)
        words = (f"model={tmp_path / 'rm'}", f"store={store.path}", f"out={tmp_path / 'out'}", "resamples=20")
        code, printed, errors = run_command("eval-reward", *words)
        assert code == 0, errors
        assert "cannot be computed from these episodes" in printed
        assert " nan" not in printed
        assert "None" not in printed
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert metrics["auroc"] is None
        assert metrics["trust_stopping"] in ("care", "no")

    def test_neither_stages_nor_outcomes_are_refused(self, tmp_path: Path) -> None:
        store = DemoStore.create(
            tmp_path / "s.zarr", features={FRONT: {"shape": (16, 16, 3), "dtype": "uint8"}}, fps=10
        )
        with store.writer(task="t", success=None) as writer:
            for t in range(5):
                writer.add({FRONT: np.full((16, 16, 3), 20 * t, np.uint8)}, timestamp=t / 10)
        with pytest.raises(StoreError, match=r"names no stages.*store\.set_success"):
            evaluate_reward_model(self.model(), store)
