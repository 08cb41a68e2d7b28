"""Metrics against values worked out by hand, and the properties they must have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from robo_rm import metrics

nan = float("nan")


def test_errors_count_only_labelled_frames() -> None:
    predicted, label = [0.1, 0.5, 0.9, 0.3], [0.0, 0.5, nan, 0.5]
    assert metrics.mse(predicted, label) == pytest.approx((0.01 + 0 + 0.04) / 3)
    assert metrics.mae(predicted, label) == pytest.approx((0.1 + 0 + 0.2) / 3)
    assert np.isnan(metrics.mse([0.1], [nan]))


def test_arrays_of_different_length_are_refused() -> None:
    for metric in (metrics.mse, metrics.mae, metrics.stage_accuracy, metrics.hallucination, metrics.auroc):
        with pytest.raises(ValueError, match="shape"):
            metric([0, 1, 0], [0, 1])


class TestVoc:
    def test_a_rising_episode_is_one_and_a_falling_one_minus_one(self) -> None:
        rising = np.array([0.1, 0.2, 0.7, 0.71])
        assert metrics.voc(rising) == pytest.approx(1)
        assert metrics.voc(rising[::-1]) == pytest.approx(-1)

    def test_ties_share_their_rank(self) -> None:
        # ranks of progress 1.5 1.5 3 4 against 1 2 3 4: covariance 4.5 / sqrt(4.5 * 5)
        assert metrics.voc([0.2, 0.2, 0.5, 0.9]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))

    def test_episodes_without_a_value_are_left_out_and_can_be_counted(self) -> None:
        episodes = [np.array([0.1, 0.2, 0.3]), np.full(5, 0.5), np.array([0.3]), np.array([0.3, 0.2, 0.1])]
        values = metrics.voc_per_episode(episodes)
        np.testing.assert_allclose(values, [1, nan, nan, -1])
        assert metrics.voc(episodes) == pytest.approx(0)
        assert np.isnan(metrics.voc(np.full(4, 0.2)))
        assert np.isnan(metrics.voc([np.full(4, 0.2)]))

    def test_a_nan_in_the_progress_is_no_rank(self) -> None:
        assert np.isnan(metrics.voc(np.array([0.1, nan, 0.3])))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1))
    def test_is_spearmans_correlation(self, progress: list[float]) -> None:
        expected = spearmanr(np.arange(len(progress)), progress).statistic
        assert metrics.voc(np.array(progress)) == pytest.approx(expected, abs=1e-9)


class TestStages:
    def test_accuracy_and_confusion_skip_unlabelled_frames(self) -> None:
        predicted, true = [0, 0, 1, 2, 2], [0, 1, 1, -1, 1]
        assert metrics.stage_accuracy(predicted, true) == pytest.approx(0.5)
        np.testing.assert_array_equal(metrics.stage_confusion(predicted, true, 3), [[1, 0, 0], [1, 1, 1], [0, 0, 0]])
        assert np.isnan(metrics.stage_accuracy([0, 1], [-1, -1]))

    def test_hallucination_counts_frames_claimed_beyond_the_truth_only(self) -> None:
        assert metrics.hallucination([2, 0, 1, 3, 0], [1, 1, 1, -1, 0]) == pytest.approx(0.25)
        assert metrics.hallucination([0, 0], [1, 1]) == 0

    def test_boundaries_need_labels_on_both_sides(self) -> None:
        assert metrics.boundaries([0, 0, 1, -1, 2, 2, 0]) == [(2, 1), (6, 0)]

    def test_boundary_f1_within_half_a_second(self) -> None:
        true = np.repeat([0, 1, 2], 20)
        near = np.repeat([0, 1, 2], [25, 15, 20])  # 5 frames late at 10 frames/s: just within
        far = np.repeat([0, 1, 2], [26, 14, 20])
        assert metrics.boundary_f1(near, true, fps=10) == 1
        assert metrics.boundary_f1(far, true, fps=10) == pytest.approx(2 * 1 / 4)
        assert metrics.boundary_counts(far, true, fps=10) == (1, 2, 2)

    def test_flicker_costs_precision_and_a_boundary_is_used_once(self) -> None:
        true = np.repeat([0, 1], 20)
        flicker = true.copy()
        flicker[18] = 1
        # found: enters 1 at 18, 0 at 19, 1 at 20; true: enters 1 at 20
        assert metrics.boundary_f1(flicker, true, fps=10) == pytest.approx(2 * 1 / 4)

    def test_the_wrong_stage_entered_at_the_right_time_does_not_match(self) -> None:
        assert metrics.boundary_f1(np.repeat([0, 2], 20), np.repeat([0, 1], 20), fps=10) == 0

    def test_several_episodes_add_up_their_counts(self) -> None:
        true = np.repeat([0, 1], 20)
        assert metrics.boundary_f1([true, np.zeros(40, int)], [true, true], fps=10) == pytest.approx(2 / 3)
        assert np.isnan(metrics.boundary_f1(np.zeros(5, int), np.zeros(5, int), fps=10))


class TestOutcome:
    def test_auroc_counts_ties_as_one_half(self) -> None:
        # pairs: .9>.1, .9>.5, .5>.1, .5=.5
        assert metrics.auroc([0.9, 0.5, 0.1, 0.5], [True, True, False, False]) == pytest.approx(3.5 / 4)
        assert np.isnan(metrics.auroc([0.1, 0.2], [True, True]))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
    def test_auroc_is_the_share_of_pairs_and_the_area_under_the_curve(self, pairs: list[tuple[int, bool]]) -> None:
        score = np.array([s for s, _ in pairs], dtype=float)
        good = np.array([g for _, g in pairs])
        if good.all() or not good.any():
            assert np.isnan(metrics.auroc(score, good))
            return
        difference = score[good][:, None] - score[~good][None, :]
        share = (difference > 0).mean() + 0.5 * (difference == 0).mean()
        assert metrics.auroc(score, good) == pytest.approx(share)
        false, true = metrics.roc_curve(score, good)
        assert (np.diff(false) * (true[1:] + true[:-1]) / 2).sum() == pytest.approx(share)

    def test_fpr_at_recall_takes_the_threshold_that_keeps_the_recall(self) -> None:
        score = np.concatenate([np.linspace(0.81, 1.0, 20), [0.0, 0.815, 0.83, 0.9]])
        good = np.arange(24) < 20
        # 19 of 20 successes pass at .82; of the failures .83 and .9 do.
        assert metrics.fpr_at_recall(score, good) == pytest.approx(0.5)
        assert metrics.fpr_at_recall(score, good, recall=1.0) == pytest.approx(0.75)
        assert np.isnan(metrics.fpr_at_recall([1.0], [True]))

    def test_the_recall_is_that_of_successes_the_threshold_has_not_seen(self) -> None:
        # Of four successes the threshold is the lowest of the other three: only the lowest of all misses it.
        assert metrics.recall_at_threshold([0.9, 0.8, 0.7, 0.6, 0.1], [True] * 4 + [False]) == pytest.approx(0.75)
        assert metrics.recall_at_threshold([0.9, 0.9, 0.1], [True, True, False]) == 1
        assert np.isnan(metrics.recall_at_threshold([0.9, 0.1], [True, False]))

    def test_a_roc_curve_needs_both_outcomes(self) -> None:
        with pytest.raises(ValueError, match="successes, failures"):
            metrics.roc_curve([0.1, 0.2], [True, True])

    def test_a_score_that_is_no_number_is_no_rank(self) -> None:
        assert np.isnan(metrics.auroc([0.1, nan, 0.3], [True, False, True]))
        assert np.isnan(metrics.kendall_tau([0.1, nan, 0.3], [0.1, 0.2, 0.3]))
        assert np.isnan(metrics.fpr_at_recall([0.1, nan], [True, False]))

    def test_kendall_tau_b_by_hand(self) -> None:
        # pairs: (1,2)+ (1,3)+ (2,3) tie in truth: tau-b = 2 / sqrt(3 * 2)
        assert metrics.kendall_tau([0.1, 0.2, 0.3], [0.0, 0.5, 0.5]) == pytest.approx(2 / np.sqrt(6))
        assert np.isnan(metrics.kendall_tau([0.1, 0.2], [0.5, 0.5]))

    def test_rho_is_correct_minus_wrong(self) -> None:
        assert metrics.rho(["success", "fail", "partial", "fail"], ["success", "fail", "fail", "fail"]) == 0.5
        assert metrics.rho(["fail"], ["success"]) == -1
        assert [metrics.classify_rollout(p) for p in (0.2, 0.35, 0.84, 0.85)] == [
            "fail",
            "partial",
            "partial",
            "success",
        ]

    def test_calibration_error_by_hand(self) -> None:
        confidence, correct = [0.95, 0.91, 0.55, 0.52], [1, 0, 1, 1]
        # bin .9-1: believes .93, right .5, two; bin .5-.6: believes .535, right 1, two
        expected = (abs(0.93 - 0.5) * 2 + abs(0.535 - 1) * 2) / 4
        assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(expected)
        assert metrics.expected_calibration_error([1.0, 1.0], [1, 1]) == 0
        assert np.isnan(metrics.expected_calibration_error([], []))


class TestIntervals:
    @pytest.mark.parametrize(
        ("successes", "trials", "low", "high"),
        [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (100, 100, 0.9630, 1.0)],
    )
    def test_wilson_against_published_values(self, successes: int, trials: int, low: float, high: float) -> None:
        interval = metrics.wilson_interval(successes, trials)
        assert interval.value == successes / trials
        assert interval.low == pytest.approx(low, abs=2e-4)
        assert interval.high == pytest.approx(high, abs=2e-4)

    def test_wilson_refuses_impossible_counts_and_knows_nothing_of_no_trials(self) -> None:
        with pytest.raises(ValueError, match="11 successes"):
            metrics.wilson_interval(11, 10)
        assert metrics.wilson_interval(0, 0)[1:] == (0.0, 1.0)

    def test_bootstrap_covers_the_mean_as_often_as_it_promises(self) -> None:
        rng = np.random.default_rng(0)
        covered = 0
        for trial in range(200):
            sample = rng.normal(3.0, 1.0, 30)
            interval = metrics.bootstrap_interval(
                lambda draw, s=sample: float(s[draw].mean()), 30, resamples=300, seed=trial
            )
            covered += interval.low <= 3.0 <= interval.high
        assert 0.87 <= covered / 200 <= 0.99

    def test_bootstrap_is_the_same_for_the_same_seed_and_gives_up_honestly(self) -> None:
        sample = np.arange(8.0)
        first, second = (
            metrics.bootstrap_interval(lambda draw: float(sample[draw].mean()), 8, seed=5) for _ in range(2)
        )
        assert first == second
        assert first.low < first.value < first.high
        assert np.isnan(metrics.bootstrap_interval(lambda draw: 1.0, 1).low)
        assert np.isnan(metrics.bootstrap_interval(lambda draw: 1.0 if len(set(draw)) == 8 else nan, 8).low)
