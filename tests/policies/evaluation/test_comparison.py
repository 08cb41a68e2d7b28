from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from drawer_policies import drawer_policy
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_core.errors import ConfigError
from robo_policies.evaluation.comparison import compare, mcnemar_exact, paired_interval
from robo_policies.evaluation.plots import time_figure
from robo_policies.evaluation.results import Evaluation
from robo_policies.evaluation.rollouts import Rollout
from robo_rm.metrics.intervals import bootstrap_interval


def counts(first, second):
    return [int(cell.sum()) for cell in (first & second, first & ~second, ~first & second, ~first & ~second)]


def test_mcnemars_test_is_that_of_a_fair_coin_on_the_pairs_that_differ():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 6) == pytest.approx(2 * 0.5**6)
    tail = sum(math.comb(10, k) for k in range(3)) / 2**10
    assert mcnemar_exact(2, 8) == mcnemar_exact(8, 2) == pytest.approx(2 * tail)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_pairs_are_counted_once_and_exchanging_the_policies_turns_the_difference_round(pairs):
    first, second = zip(*pairs, strict=True)
    one, other = compare(first, second), compare(second, first)
    assert one.both + one.only_first + one.only_second + one.neither == len(pairs)
    assert one.p_value == other.p_value
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert one.difference.low <= one.difference.value <= one.difference.high
    assert one.difference.value == pytest.approx(np.mean(second) - np.mean(first))
    assert {one.verdict, other.verdict} in ({"undecided"}, {"better", "worse"})


def test_equally_good_policies_are_told_apart_in_about_one_comparison_of_twenty_at_most():
    random = np.random.default_rng(0)
    found = [compare(*(random.random((2, 60)) < 0.6)).verdict for _ in range(60)]
    assert found.count("undecided") >= 54


def test_the_interval_agrees_with_a_bootstrap_where_many_starts_differ():
    random = np.random.default_rng(2)
    first, second = random.random(400) < 0.5, random.random(400) < 0.7
    change = second.astype(float) - first
    plain = bootstrap_interval(lambda draw: float(change[draw].mean()), len(change), resamples=10000)
    assert compare(first, second).difference == pytest.approx(plain, abs=0.015)


def test_the_interval_keeps_a_width_where_no_start_differs():
    same = compare([True] * 4, [True] * 4).difference
    assert (same.value, same.low, same.high) == (0.0, pytest.approx(-0.49, abs=0.01), pytest.approx(0.49, abs=0.01))


@pytest.mark.parametrize("rates", [(0.5, 0.5, 0.6), (0.1, 0.3, 0.9), (0.9, 0.95, 0.5)])
def test_the_interval_holds_the_true_difference_in_nineteen_of_twenty_cases(rates):
    """Pairs made alike by a hard or an easy start that both share in ``rates[2]`` of the cases."""
    one, other, shared = rates
    random = np.random.default_rng(3)
    held, runs = 0, 1500
    for _ in range(runs):
        luck = random.random((40, 2))
        luck[:, 1] = np.where(random.random(40) < shared, luck[:, 0], luck[:, 1])
        found = paired_interval(*counts(luck[:, 0] < one, luck[:, 1] < other))
        held += found.low <= other - one <= found.high
    assert 0.935 <= held / runs <= 0.99


def test_a_clear_difference_is_found():
    random = np.random.default_rng(1)
    result = compare(random.random(100) < 0.4, random.random(100) < 0.9)
    assert result.verdict == "better"
    assert result.difference.low > 0.25


def test_what_cannot_be_paired_is_refused():
    for first, second in (([True], [True, False]), ([], [])):
        with pytest.raises(ConfigError, match="cannot be paired"):
            compare(first, second)
    with pytest.raises(ValueError, match="0 or more"):
        mcnemar_exact(-1, 2)


def test_eval_policy_compares_two_policies_and_writes_a_page_with_videos(run_command, tiny_act, tmp_path):
    folders = []
    for number, seed in enumerate((0, 1)):
        folders.append(tmp_path / f"policy_{number}")
        drawer_policy(folders[-1], tiny_act, seed)
    out = tmp_path / "eval"
    code, printed, errors = run_command(
        "eval-policy", f"policy={folders[1]}", f"baseline={folders[0]}", "episodes=2", "videos=1", "processes=1",
        "execution.horizon=5", f"out={out}",
    )  # fmt: skip
    assert code == 0, errors
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["mcnemar_p"] == 1.0
    assert metrics["difference"] == metrics["success_rate"] - metrics["baseline/success_rate"]
    assert "policy_1" in printed
    page = (out / "report.html").read_text()
    assert page.count("<img") >= 4
    assert "do not distinguish policy_1 from policy_0" in page
    for link in re.findall(r'href="([^"]+)"', page):
        assert (out / link).is_file()
    assert page.count("<a href=") == 4
    videos = {path.relative_to(out / "videos").as_posix() for path in (out / "videos").rglob("*.mp4")}
    assert len(videos) == 4
    assert {video.split("/")[0] for video in videos} == {"policy_0", "policy_1"}
    for name in ("episodes.json", "baseline_episodes.json"):
        assert len(json.loads((out / name).read_text())["episodes"]) == 2


def test_a_policy_is_not_compared_with_itself(run_command, tmp_path):
    code, _, errors = run_command(
        "eval-policy", f"policy={tmp_path}", f"baseline={tmp_path}/../{tmp_path.name}", f"out={tmp_path}/eval"
    )
    assert (code, errors.count("\n")) == (2, 1)
    assert "is the policy itself" in errors


def test_the_curve_of_successes_shows_those_of_the_last_moment():
    early = Rollout(0, 0, True, 10, 1.0, 0, 0, 1.0, 1.0, 1.0)
    figure = time_figure({"policy": Evaluation((early, replace(early, episode=1, seconds=4.0)), ("do",))})
    (line,) = figure.axes[0].get_lines()
    x, y = line.get_data()
    assert (y[-1], x[-2]) == (1.0, 4.0)
    assert figure.axes[0].get_xlim()[1] > 4.0
