"""RA-BC weights: the paper's equations by hand, and each mend of `calibrated` mode on its own."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robo_core.errors import ConfigError, ModelError
from robo_rm.weights.options import Calibration
from robo_rm.weights.rabc import StoreWeights, rabc_weights, store_weights
from robo_rm.weights.report import effective_sample_size, weight_report

# No mend at all: the straight ramp from 0 to a fixed kappa over plain deltas.
BARE = Calibration(
    quantile=None,
    dead_zone=0.0,
    normalise_horizon=False,
    protect_success=False,
    length_scaling=False,
    average=False,
    smoothing=0,
)


class TestPaper:
    def test_equals_the_hand_computed_values_with_given_statistics(self) -> None:
        progress = np.array([0.0, 0.004, 0.004, 0.3, 0.2, 0.205])
        # D = 1: r = .004, 0, .296, -.1, .005, 0.  mu = .05, sigma = .1: lower edge -.15, width .4 + 1e-6.
        expected = [0.154 / 0.400001, 0.15 / 0.400001, 1.0, 0.0, 0.155 / 0.400001, 0.15 / 0.400001]
        weights = rabc_weights(progress, 1, mean=0.05, std=0.1)
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights, expected, rtol=1e-6)

    def test_takes_progress_at_the_last_frame_where_the_horizon_passes_it(self) -> None:
        progress = np.array([0.0, 0.1, 0.2, 0.205])
        # D = 2: r = .2, .105, .005, 0 (F at min(t + 2, 3)).
        weights = rabc_weights(progress, 2, mean=0.0, std=0.0025)
        np.testing.assert_allclose(weights, [1, 1, 0.01 / 0.010001, 0.005 / 0.010001], rtol=1e-5)

    def test_uses_the_population_statistics_of_the_array_where_none_are_given(self) -> None:
        progress = np.array([0.0, 0.005, 0.2, 0.2])
        deltas = np.array([0.005, 0.195, 0.0, 0.0])
        mu, sigma = deltas.mean(), deltas.std()
        soft = (deltas - (mu - 2 * sigma)) / (4 * sigma + 1e-6)
        expected = [soft[0], 1.0, soft[2], soft[3]]
        np.testing.assert_allclose(rabc_weights(progress, 1), expected, rtol=1e-6)

    def test_a_negative_mean_counts_as_zero(self) -> None:
        progress = np.array([0.5, 0.5, 0.5])
        np.testing.assert_allclose(rabc_weights(progress, 1, mean=-0.3, std=0.1), 0.2 / 0.400001, rtol=1e-6)

    def test_deltas_equal_to_kappa_are_soft_and_above_it_full(self) -> None:
        progress = np.array([0.0, 0.25, 0.75])
        weights = rabc_weights(progress, 1, kappa=0.25, mean=0.0, std=0.25)
        np.testing.assert_allclose(weights[:2], [0.75 / 1.000001, 1.0], rtol=1e-6)

    def test_constant_progress_has_no_spread_and_still_gives_numbers(self) -> None:
        weights = rabc_weights(np.full(10, 0.4), 3)
        np.testing.assert_array_equal(weights, np.zeros(10, np.float32))

    def test_store_statistics_are_those_of_all_frames_together(self) -> None:
        rng = np.random.default_rng(0)
        progress = {name: np.cumsum(rng.normal(0.002, 0.01, n)) for name, n in (("a", 50), ("b", 80), ("c", 1))}
        deltas = np.concatenate([p[np.minimum(np.arange(len(p)) + 7, len(p) - 1)] - p for p in progress.values()])
        result = store_weights(progress, 7, mode="paper")
        assert result.statistics.mean == pytest.approx(max(deltas.mean(), 0.0))
        assert result.statistics.std == pytest.approx(deltas.std())
        for name, array in progress.items():
            alone = rabc_weights(array, 7, mean=deltas.mean(), std=deltas.std())
            np.testing.assert_array_equal(result.weights[name], alone)


class TestCalibrated:
    def test_bare_ramp_runs_straight_from_nothing_to_kappa(self) -> None:
        progress = np.array([0.0, 0.05, 0.15, 0.3, 0.25, 0.25])
        # D = 1, kappa .1: r = .05, .1, .15, -.05, 0, 0
        weights = rabc_weights(progress, 1, "calibrated", kappa=0.1, calibration=BARE)
        np.testing.assert_allclose(weights, [0.5, 1, 1, 0, 0, 0], atol=1e-6)

    def test_kappa_is_the_quantile_of_positive_deltas(self) -> None:
        progress = np.array([0.0, 0.1, 0.3, 0.6, 1.0, 0.9, 0.9])
        result = store_weights({"a": progress}, 1, calibration=replace(BARE, quantile=0.5))
        assert result.statistics.kappa == pytest.approx(0.25)  # median of .1 .2 .3 .4
        np.testing.assert_allclose(result.weights["a"], [0.4, 0.8, 1, 1, 0, 0, 0], atol=1e-6)

    def test_dead_zone_silences_small_gains(self) -> None:
        progress = np.array([0.0, 0.02, 0.08, 0.18, 0.18])
        weights = rabc_weights(progress, 1, "calibrated", kappa=0.1, calibration=replace(BARE, dead_zone=0.2))
        np.testing.assert_allclose(weights, [0, 0.5, 1, 0, 0], atol=1e-6)

    def test_horizon_normalisation_gives_a_steady_episode_the_same_weight_to_its_end(self) -> None:
        progress = np.linspace(0, 1, 101)
        cut = rabc_weights(progress, 20, "calibrated", kappa=0.4, calibration=BARE)
        mended = rabc_weights(progress, 20, "calibrated", kappa=0.4, calibration=replace(BARE, normalise_horizon=True))
        np.testing.assert_allclose(mended, 0.5, atol=1e-6)
        assert cut[-1] == 0
        assert cut[-6] == pytest.approx(0.125)

    def test_horizon_normalisation_measures_half_a_horizon_at_least(self) -> None:
        progress = np.concatenate([np.linspace(0, 0.9, 91), [0.95]])
        weights = rabc_weights(progress, 10, "calibrated", kappa=1.0, calibration=replace(BARE, normalise_horizon=True))
        # Last frame: from frame 86 (.86) to 91 (.95), five frames, doubled to the horizon of ten.
        assert weights[-1] == pytest.approx((0.95 - 0.86) * 2)

    def test_averaging_counts_early_gains_more_and_leaves_a_steady_pace_alone(self) -> None:
        mean = replace(BARE, average=True)
        # D = 3: at frame 0 the gains are 0, 0, .3: mean .1, times 2 * 3 / 4; at frame 2 they are .3, .3, .3: mean .3.
        progress = np.array([0.0, 0.0, 0.0, 0.3, 0.3, 0.3])
        weights = rabc_weights(progress, 3, "calibrated", kappa=1.0, calibration=mean)
        np.testing.assert_allclose(weights[[0, 1, 2]], [0.15, 0.3, 0.45], atol=1e-6)
        line = np.linspace(0, 1, 60)
        for normalise in (False, True):
            np.testing.assert_allclose(
                rabc_weights(line, 7, "calibrated", kappa=0.3, calibration=replace(mean, normalise_horizon=normalise)),
                rabc_weights(line, 7, "calibrated", kappa=0.3, calibration=replace(BARE, normalise_horizon=normalise)),
                atol=1e-6,
            )

    def test_by_default_a_pause_about_to_end_is_still_a_pause(self) -> None:
        progress = np.concatenate([np.linspace(0, 0.5, 120), np.full(40, 0.5), np.linspace(0.5, 1, 120)])
        paper_like = rabc_weights(progress, 12, "calibrated", calibration=replace(BARE, quantile=0.5))
        default = rabc_weights(progress, 12, "calibrated")
        about_to_end = slice(148, 156)
        assert default[about_to_end].mean() < 0.5 * paper_like[about_to_end].mean()
        assert default[165:].min() > 0.9

    def test_the_end_of_a_success_is_kept_and_that_of_a_failure_is_not(self) -> None:
        progress = np.concatenate([np.linspace(0, 1, 50), np.ones(10)])
        protected = replace(BARE, protect_success=True)
        for success, expected in ((True, 1.0), (False, 0.0), (None, 0.0)):
            weights = rabc_weights(progress, 8, "calibrated", kappa=0.1, calibration=protected, success=success)
            np.testing.assert_array_equal(weights[-8:], expected)

    def test_length_scaling_puts_slow_and_fast_successes_on_one_pace(self) -> None:
        progress = {"fast": np.linspace(0, 1, 101), "slow": np.linspace(0, 1, 201)}
        plain = store_weights(progress, 10, kappa=0.1, calibration=BARE)
        scaled = store_weights(progress, 10, kappa=0.2, calibration=replace(BARE, length_scaling=True))
        assert plain.weights["fast"][0] == pytest.approx(1.0)
        assert plain.weights["slow"][0] == pytest.approx(0.5)
        # dG = (P_{t+H} - P_t) L / Lmean, Lmean = 151
        assert scaled.weights["fast"][0] == pytest.approx(0.1 * 101 / 151 / 0.2, rel=1e-5)
        assert scaled.weights["slow"][0] == pytest.approx(0.05 * 201 / 151 / 0.2, rel=1e-5)

    def test_length_scaling_leaves_failures_and_their_lengths_out(self) -> None:
        progress = {"good": np.linspace(0, 1, 101), "bad": np.linspace(0, 0.3, 31)}
        result = store_weights(
            progress,
            10,
            kappa=0.2,
            success={"good": True, "bad": False},
            calibration=replace(BARE, length_scaling=True, failure_discount=1.0),
        )
        assert result.statistics.mean_length == 101
        assert result.weights["bad"][0] == pytest.approx(0.5, rel=1e-5)

    def test_smoothing_takes_noise_out_of_a_pause_and_narrows_at_the_ends(self) -> None:
        rng = np.random.default_rng(1)
        pause = 0.5 + rng.normal(0, 0.02, 400)
        settings_ = replace(BARE, dead_zone=0.2)
        rough = rabc_weights(pause, 10, "calibrated", kappa=0.1, calibration=settings_)
        smooth = rabc_weights(pause, 10, "calibrated", kappa=0.1, calibration=replace(settings_, smoothing=5))
        assert smooth.mean() < rough.mean() / 2
        line = np.linspace(0, 1, 50)
        np.testing.assert_allclose(
            rabc_weights(line, 5, "calibrated", kappa=0.3, calibration=replace(BARE, smoothing=7)),
            rabc_weights(line, 5, "calibrated", kappa=0.3, calibration=BARE),
            atol=1e-6,
        )

    def test_failure_discount_scales_failures_alone(self) -> None:
        progress = {"good": np.linspace(0, 1, 50), "bad": np.linspace(0, 1, 50), "?": np.linspace(0, 1, 50)}
        result = store_weights(
            progress,
            5,
            success={"good": True, "bad": False, "?": None},
            calibration=replace(Calibration(), failure_discount=0.25, length_scaling=False),
        )
        np.testing.assert_allclose(result.weights["bad"], 0.25 * result.weights["?"], atol=1e-7)
        np.testing.assert_array_equal(result.weights["good"], 1.0)

    def test_failures_are_left_out_unless_asked_for_and_nothing_but_failures_is_told(self) -> None:
        progress = {"good": np.linspace(0, 1, 50), "bad": np.linspace(0, 1, 50)}
        result = store_weights(progress, 5, success={"good": True, "bad": False})
        assert result.weights["good"].all()
        assert not result.weights["bad"].any()
        alone = store_weights({"bad": progress["bad"]}, 5, success={"bad": False})
        assert "calibration.failure_discount" in weight_report(alone).warnings[0]
        # Kept, they weigh nothing for another reason.
        kept = replace(Calibration(), failure_discount=1.0)
        falling = store_weights({"bad": progress["bad"][::-1]}, 5, success={"bad": False}, calibration=kept)
        assert "no frame gains progress" in weight_report(falling).warnings[0]

    def test_productive_motion_counts_and_pauses_and_regressions_do_not(self) -> None:
        rng = np.random.default_rng(2)
        move, pause, regress, resume = (
            np.linspace(0, 0.5, 120),
            np.full(80, 0.5),
            np.linspace(0.5, 0.3, 20),
            np.linspace(0.3, 1, 168),
        )
        progress = np.concatenate([move, pause, regress, resume])
        noisy = np.clip(progress + rng.normal(0, 0.004, len(progress)), 0, 1)
        others = {str(i): np.linspace(0, 1, 240) for i in range(5)}
        result = store_weights({"mixed": noisy, **others}, 20, success={"mixed": True})
        weights = result.weights["mixed"]
        assert weights[:90].mean() > 0.9
        assert weights[122:178].mean() < 0.05
        assert weights[195:215].mean() < 0.05
        assert weights[225:].mean() > 0.9

    def test_all_zero_progress_weighs_nothing(self) -> None:
        result = store_weights({"a": np.zeros(40)}, 5)
        assert not result.weights["a"].any()


class TestBadInput:
    @pytest.mark.parametrize("mode", ["paper", "calibrated"])
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_progress_that_is_no_number_is_an_error_naming_episode_and_frame(self, mode: str, bad: float) -> None:
        progress = np.linspace(0, 1, 20)
        progress[13] = bad
        with pytest.raises(ModelError, match=r"episode abc .* at frame 13"):
            store_weights({"ok": np.linspace(0, 1, 9), "abc": progress}, 5, mode)
        with pytest.raises(ValueError, match="frame 13"):
            rabc_weights(progress, 5, mode)

    def test_settings_out_of_range_are_named(self) -> None:
        line = np.linspace(0, 1, 20)
        with pytest.raises(ConfigError, match="horizon=0"):
            rabc_weights(line, 0)
        with pytest.raises(ConfigError, match="mode=papr"):
            rabc_weights(line, 5, "papr")
        with pytest.raises(ConfigError, match="kappa=-1"):
            rabc_weights(line, 5, kappa=-1)
        for key, value in (
            ("quantile", 1.0),
            ("dead_zone", 1.0),
            ("smoothing", -1),
            ("failure_discount", 1.5),
        ):
            with pytest.raises(ConfigError, match=rf"calibration\.{key}"):
                rabc_weights(line, 5, "calibrated", calibration=replace(Calibration(), **{key: value}))
        with pytest.raises(ConfigError, match="no episode"):
            store_weights({}, 5)
        with pytest.raises(ModelError, match="shape"):
            rabc_weights(np.zeros((3, 2)), 5)


episodes = st.lists(
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1, width=32)), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(
    episodes,
    st.integers(1, 30),
    st.sampled_from(["paper", "calibrated"]),
    st.lists(st.sampled_from([True, False, None]), min_size=5, max_size=5),
)
def test_weights_of_any_progress_are_finite_within_bounds_and_do_not_depend_on_order(
    arrays: list[np.ndarray], horizon: int, mode: str, outcomes: list[bool | None]
) -> None:
    progress = {str(i): array for i, array in enumerate(arrays)}
    success = dict(zip(progress, outcomes, strict=False))
    result = store_weights(progress, horizon, mode, success=success)
    for name, array in progress.items():
        assert result.weights[name].shape == array.shape
        assert np.all((result.weights[name] >= 0) & (result.weights[name] <= 1))
    backwards = store_weights(dict(reversed(progress.items())), horizon, mode, success=success)
    for name in progress:
        np.testing.assert_allclose(backwards.weights[name], result.weights[name], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(3, 60), elements=st.floats(0, 1, width=32)),
    st.integers(1, 30),
    st.integers(0, 4),
)
def test_no_episode_reaches_into_its_neighbour(array: np.ndarray, horizon: int, smoothing: int) -> None:
    fixed = Calibration(quantile=None, length_scaling=False, smoothing=smoothing)
    alone = store_weights({"x": array}, horizon, kappa=0.1, calibration=fixed)
    between = store_weights({"a": np.ones(7), "x": array, "b": np.zeros(5)}, horizon, kappa=0.1, calibration=fixed)
    np.testing.assert_allclose(between.weights["x"], alone.weights["x"], atol=1e-6)


class TestReport:
    def test_effective_sample_size_of_known_weights(self) -> None:
        assert effective_sample_size(np.ones(50)) == pytest.approx(50)
        assert effective_sample_size(np.array([1.0, 0, 0, 1.0])) == pytest.approx(2)
        assert effective_sample_size(np.array([1.0, 0.5])) == pytest.approx(1.5**2 / 1.25)
        assert effective_sample_size(np.zeros(4)) == 0

    def test_says_when_nothing_weighs(self) -> None:
        report = weight_report(store_weights({"a": np.zeros(40)}, 5))
        assert "every weight is 0" in report.warnings[0]
        assert report.nothing == 1

    def test_says_when_the_paper_mode_is_plain_cloning(self) -> None:
        report = weight_report(store_weights({"a": np.linspace(0, 1, 400)}, 25, "paper"))
        assert any("nearly uniform" in warning for warning in report.warnings)

    def test_says_when_weights_are_nearly_binary(self) -> None:
        weights = {"a": np.repeat(np.array([0, 1], np.float32), 50)}
        base = store_weights({"a": np.linspace(0, 1, 100)}, 5)
        report = weight_report(StoreWeights(weights, base.statistics, 5, "calibrated"))
        assert any("nearly binary" in warning for warning in report.warnings)
        assert report.full == report.nothing == 0.5

    def test_says_when_failures_outweigh_successes(self) -> None:
        progress = {"good": np.full(100, 0.5), "bad": np.linspace(0, 1, 100)}
        kept = Calibration(failure_discount=1.0)
        result = store_weights(progress, 5, success={"good": True, "bad": False}, calibration=kept)
        report = weight_report(result)
        assert any("failed episodes have more weight" in warning for warning in report.warnings)
        assert any("less than a tenth" in warning for warning in report.warnings)

    def test_says_when_a_stage_hardly_counts(self) -> None:
        progress = {str(i): np.concatenate([np.linspace(0, 0.5, 80), np.linspace(0.5, 0.51, 40)]) for i in range(3)}
        stages = {uuid: np.repeat([0, 1], [80, 40]) for uuid in progress}
        report = weight_report(store_weights(progress, 10), stages, ["reach", "grasp"])
        assert [warning for warning in report.warnings if "hardly learn" in warning] == [
            next(warning for warning in report.warnings if warning.startswith("stage 'grasp'"))
        ]

    def test_says_when_the_progress_does_not_follow_the_successes(self) -> None:
        rng = np.random.default_rng(0)
        lost = {str(i): rng.random(100) for i in range(3)}
        warnings = weight_report(store_weights(lost, 10), progress=lost).warnings
        assert any("may do worse than none" in warning for warning in warnings)
        bad = store_weights(lost, 10, success=dict.fromkeys(lost, False))
        assert not any("may do worse" in warning for warning in weight_report(bad, progress=lost).warnings)

    def test_a_sensible_mix_gives_no_warning(self) -> None:
        rng = np.random.default_rng(3)
        progress = {}
        for i in range(8):
            steps = rng.uniform(0.3, 1.0, 200) * (np.arange(200) % 60 > 12)
            progress[str(i)] = np.cumsum(steps) / steps.sum()
        report = weight_report(store_weights(progress, 10), progress=progress)
        assert report.warnings == ()
        assert 0 < report.metrics()["effective_fraction"] < 1


@pytest.mark.parametrize("mode", ["paper", "calibrated"])
def test_a_million_frames_take_less_than_two_seconds(mode: str) -> None:
    rng = np.random.default_rng(0)
    progress = {str(i): np.sort(rng.random(400)).astype(np.float32) for i in range(2500)}
    # Time of this process: what else the machine does has no part in it.
    started = time.process_time()
    result = store_weights(progress, 25, mode, calibration=Calibration(smoothing=3))
    assert time.process_time() - started < 2.0
    assert sum(map(len, result.weights.values())) == 1_000_000


class TestKappa:
    """kappa is the pace of what weighs something."""

    def demonstrations(self, failures: int) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
        """Two successes, one of which stands still in the middle under a creeping model, and slow failures."""
        creep = np.concatenate([np.linspace(0, 0.5, 40), np.linspace(0.5, 0.51, 30), np.linspace(0.51, 1, 40)])
        progress = {"a": np.linspace(0, 1, 80), "b": creep}
        progress |= {f"f{n}": np.linspace(0, 0.05, 100) for n in range(failures)}
        return progress, {name: not name.startswith("f") for name in progress}

    @pytest.mark.parametrize("failures", [4, 8, 16])
    def test_failures_that_weigh_nothing_do_not_make_pauses_weigh(self, failures: int) -> None:
        progress, success = self.demonstrations(failures)
        alone = store_weights(*self.only_successes(), success={"a": True, "b": True})
        with_failures = store_weights(progress, 10, success=success)
        assert with_failures.statistics.kappa == pytest.approx(alone.statistics.kappa)
        assert with_failures.weights["b"][45:60].max() == 0

    def only_successes(self) -> tuple[dict[str, np.ndarray], int]:
        return self.demonstrations(0)[0], 10

    def test_where_all_failed_their_productive_part_has_a_pace(self) -> None:
        progress = {"f": np.linspace(0, 0.6, 50)}
        kept = store_weights(progress, 10, success={"f": False}, calibration=Calibration(failure_discount=1.0))
        assert kept.statistics.kappa > 0
        assert store_weights(progress, 10, success={"f": False}).weights["f"].max() == 0
