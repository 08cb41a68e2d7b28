"""Ways to prefer demonstrations that RA-BC is compared with."""

from __future__ import annotations

import numpy as np
import pytest

from robo_core.errors import ConfigError, ModelError
from robo_rm.weights.options import MODES, Advantage, Calibration, TopFraction
from robo_rm.weights.rabc import rabc_weights, store_weights
from robo_rm.weights.report import weight_report
from robo_rm.weights.selection import advantage_labels

BARE = Calibration(
    quantile=None, dead_zone=0.0, normalise_horizon=False, protect_success=False, length_scaling=False, average=False,
    smoothing=0,
)  # fmt: skip
EPISODES = {
    "slow": np.linspace(0, 1, 80),
    "fast": np.linspace(0, 1, 40),
    "half": np.linspace(0, 0.5, 50),
    "early": np.minimum(np.linspace(0, 1.8, 60), 0.9),
}


def kept(mode: str, **options) -> set[str]:
    result = store_weights(EPISODES, 5, mode, **options)
    for weights in result.weights.values():
        assert len(set(weights.tolist())) == 1
    return {name for name, weights in result.weights.items() if weights[0] == 1}


def test_success_only_keeps_the_frames_of_successes() -> None:
    assert kept("success_only", success={"slow": True, "fast": False, "half": None, "early": True}) == {"slow", "early"}
    with pytest.raises(ConfigError, match="no episode is marked as a success"):
        store_weights(EPISODES, 5, "success_only")


@pytest.mark.parametrize(
    ("fraction", "by", "expected"),
    [
        (0.5, "final_progress", {"slow", "fast"}),
        (0.75, "final_progress", {"slow", "fast", "early"}),
        (0.25, "mean_return", {"early"}),
        (0.01, "final_progress", {"slow"}),
        (1.0, "mean_return", set(EPISODES)),
    ],
)
def test_top_fraction_keeps_the_best_episodes(fraction: float, by: str, expected: set[str]) -> None:
    assert kept("top_fraction", top=TopFraction(fraction, by)) == expected


def test_advantages_are_measured_against_frames_that_were_as_far_along() -> None:
    # Two bins: in the first, gains are .1 and .3 (mean .2); in the second, .01 and .03 (mean .02).
    progress = np.array([0.1, 0.2, 0.7, 0.8])
    deltas = np.array([0.1, 0.3, 0.01, 0.03])
    # A = -.1, .1, -.01, .01
    labels = advantage_labels(deltas, progress, Advantage(positive=0.25, negative=0.25, bins=2))
    assert labels.tolist() == [-1, 1, 0, 0]
    # One bin: V = .11, A = -.01, .19, -.1, -.08
    assert advantage_labels(deltas, progress, Advantage(0.25, 0.25, bins=1)).tolist() == [0, 1, -1, 0]


def test_the_three_classes_weigh_one_neutral_and_nothing() -> None:
    rng = np.random.default_rng(0)
    progress = {str(i): np.sort(rng.random(200)) for i in range(20)}
    weights = store_weights(progress, 10, "advantage", advantage=Advantage(0.2, 0.3, neutral=0.25)).weights
    flat = np.concatenate(list(weights.values()))
    shares = {value: float((flat == value).mean()) for value in (0.0, 0.25, 1.0)}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[1.0] == pytest.approx(0.2, abs=0.02)
    assert shares[0.0] == pytest.approx(0.3, abs=0.02)


def test_where_all_frames_do_alike_none_has_an_advantage() -> None:
    weights = store_weights({"a": np.full(50, 0.3)}, 5, "advantage").weights["a"]
    np.testing.assert_array_equal(weights, 0.5)


def test_length_scaling_alone_is_the_formula_of_the_paper_it_comes_from() -> None:
    # dG = (P_{t+H} - P_t) L / Lmean, nothing else changed.
    settings = Calibration(**{**vars(BARE), "length_scaling": True})
    result = store_weights(EPISODES, 5, "calibrated", kappa=1.0, calibration=settings)
    mean = np.mean([len(progress) for progress in EPISODES.values()])
    for name, progress in EPISODES.items():
        gain = progress[np.minimum(np.arange(len(progress)) + 5, len(progress) - 1)] - progress
        np.testing.assert_allclose(result.weights[name], gain * len(progress) / mean, atol=1e-6)


def test_filters_are_not_blamed_for_being_binary() -> None:
    rng = np.random.default_rng(0)
    episodes = {str(i): np.sort(rng.random(50)) for i in range(10)}
    report = weight_report(store_weights(episodes, 5, "top_fraction"))
    assert not any("binary" in warning for warning in report.warnings)
    assert report.full == pytest.approx(0.5)


@pytest.mark.parametrize("mode", MODES)
def test_progress_that_is_no_number_is_an_error_in_every_mode(mode: str) -> None:
    progress = np.linspace(0, 1, 20)
    progress[13] = np.nan
    with pytest.raises(ModelError, match=r"episode abc .* at frame 13"):
        store_weights({"abc": progress}, 5, mode, success={"abc": True})


def test_settings_out_of_range_are_named() -> None:
    for options, words in (
        ({"top": TopFraction(0.0)}, r"top\.fraction=0"),
        ({"top": TopFraction(by="reward")}, r"top\.by=reward is unknown; choose one of final_progress, mean_return"),
        ({"advantage": Advantage(0.7, 0.6)}, "both together at most 1"),
        ({"advantage": Advantage(neutral=2)}, r"advantage\.neutral=2"),
        ({"advantage": Advantage(bins=0)}, r"advantage\.bins=0"),
    ):
        with pytest.raises(ConfigError, match=words):
            store_weights(EPISODES, 5, "top_fraction", **options)
    with pytest.raises(ConfigError, match="compares episodes"):
        rabc_weights(EPISODES["slow"], 5, "top_fraction")
