"""Each metric as a function of which episodes are drawn, so that one bootstrap serves them all, with bounds of its own.

What a metric means stands in docs/evaluating.md; here is how it is counted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from robo_rm import metrics
from robo_rm.evaluation.evaluated import EvaluatedEpisode
from robo_rm.evaluation.probes import Count
from robo_rm.evaluation.support import FEWEST
from robo_rm.metrics import (
    Interval,
    auroc_interval,
    bootstrap_interval,
    exact_interval,
    hull,
    mean_interval,
    student_interval,
)

Statistic = Callable[[npt.NDArray[np.int64]], float]


@dataclass(frozen=True)
class Metric:
    """A metric as a function of which episodes are drawn, and what its interval is besides the bootstrap's."""

    statistic: Statistic
    bounds: Callable[[float], Interval | None] = lambda value: None
    """From its value to an interval that stays open where all episodes are alike, see `robo_rm.metrics.intervals`."""
    enough: bool = True
    """Whether there are episodes enough for an interval: of a few that agree by chance any would be too narrow."""

    def interval(self, episodes: int, resamples: int, seed: int) -> Interval:
        """Its value over all episodes, and the wider of its intervals."""
        found = bootstrap_interval(self.statistic, episodes, resamples=resamples, seed=seed)
        if not self.enough:
            return Interval(found.value, float("nan"), float("nan"))
        other = self.bounds(found.value) if np.isfinite(found.value) else None
        return found if other is None else hull(found, other)


Order = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""What stands for final and for highest progress where only their order counts, (E,) both."""


def statistics_of(
    evaluated: Sequence[EvaluatedEpisode], fps: float, order: Order | None = None
) -> dict[str, Statistic]:
    """Each metric as a function of which episodes are drawn; see `metrics_of`."""
    return {name: metric.statistic for name, metric in metrics_of(evaluated, fps, order).items()}


def metrics_of(evaluated: Sequence[EvaluatedEpisode], fps: float, order: Order | None = None) -> dict[str, Metric]:
    """Each metric of some episodes, failures first.

    ``order`` stands for final and highest progress where only their order counts, so that two models on scales of their
    own can exchange episodes, see `ranks_of`.
    """
    known = np.array([episode.success is not None for episode in evaluated], bool)
    good = np.array([episode.success is True for episode in evaluated], bool)
    final = np.array([episode.final for episode in evaluated], float)
    highest = np.array([episode.highest for episode in evaluated], float)
    chance = np.array([episode.final if episode.chance is None else episode.chance for episode in evaluated], float)
    not_failed = np.array([not episode.failed for episode in evaluated], bool)
    failed = ~not_failed
    value_order = metrics.voc_per_episode([episode.prediction.progress for episode in evaluated])
    turned = np.full(len(evaluated), np.nan)
    for i, episode in enumerate(evaluated):
        if episode.clips.reversed_progress is not None:
            turned[i] = metrics.voc_per_episode([episode.clips.reversed_progress])[0]
    counts = np.array(
        [metrics.boundary_counts(e.prediction.stage, e.stage, fps) for e in evaluated], dtype=np.float64
    ).reshape(-1, 3)
    true_final = np.array([_true_final(episode) for episode in evaluated], float)
    grades = np.array([_grade(episode) for episode in evaluated], float)
    right = np.array([_classified_right(episode) for episode in evaluated], float)
    squared, absolute = _errors(evaluated, np.square), _errors(evaluated, np.abs)
    stages, beyond = _stages(evaluated, operator.eq), _stages(evaluated, operator.gt)
    claimed = _counts((float(episode.clips.claimed), float(episode.clips.frames)) for episode in evaluated)
    wins, losses = int((known & good).sum()), int((known & ~good).sum())
    order = (final, highest) if order is None else order

    def over_known(metric: Callable[..., float], score: npt.NDArray[np.float64]) -> Statistic:
        return lambda draw: metric(score[draw][known[draw]], good[draw][known[draw]])

    def tau_to(truth: npt.NDArray[np.float64]) -> Statistic:
        def statistic(draw: npt.NDArray[np.int64]) -> float:
            usable = draw[np.isfinite(truth[draw])]
            return metrics.kendall_tau(order[0][usable], truth[usable])

        return statistic

    def graded(draw: npt.NDArray[np.int64]) -> float:
        between = (grades[draw] > 0) & (grades[draw] < 1)
        return tau_to(grades)(draw) if between.any() else float("nan")

    def rho(draw: npt.NDArray[np.int64]) -> float:
        classified = draw[np.isfinite(right[draw])]
        # Successes alone, or failures alone, are all called rightly by who says the same of everything.
        if good[classified].all() or not good[classified].any():
            return float("nan")
        return _mean(right[classified])

    def of_right(value: float) -> Interval:
        classified = right[np.isfinite(right)]
        rate = exact_interval(int((classified > 0).sum()), len(classified))
        return Interval(value, 2 * rate.low - 1, 2 * rate.high - 1)

    def ranks(score: npt.NDArray[np.float64]) -> Metric:
        return Metric(_auroc(score, good, known), lambda value: auroc_interval(value, wins, losses))

    def rate(metric: Callable[..., float], trials: int) -> Metric:
        return Metric(
            over_known(metric, order[0]),
            lambda value: exact_interval(round(value * trials), trials) if trials else None,
        )

    return {
        "auroc": ranks(order[0]),
        "auroc_max": ranks(order[1]),
        "fpr_at_recall": rate(metrics.fpr_at_recall, losses),
        "recall_at_threshold": rate(metrics.recall_at_threshold, wins),
        "hallucination": _fraction(_only(beyond, failed)),
        "hallucination_probes": _fraction(claimed),
        "stage_accuracy_failures": _fraction(_only(stages, failed)),
        "rho": Metric(rho, of_right),
        "kendall_tau": Metric(tau_to(true_final)),
        "grade_tau": Metric(graded),
        "epic": Metric(_epic(evaluated)),
        "mse": _average(_only(squared, not_failed), 0.0),
        "mae": _average(_only(absolute, not_failed), 0.0),
        "voc": _correlation(np.where(not_failed, value_order, np.nan)),
        "voc_reversed": _correlation(turned),
        "stage_accuracy": _fraction(_only(stages, not_failed)),
        "boundary_f1": _fraction((2 * counts[:, 0], counts[:, 1] + counts[:, 2])),
        "ece_stage": Metric(_calibration_of_stages(evaluated)),
        "ece_success": Metric(over_known(metrics.expected_calibration_error, np.clip(chance, 0, 1))),
    }


def ranks_of(evaluated: Sequence[EvaluatedEpisode]) -> Order:
    """Ranks of final and of highest progress among the episodes of one model, ties sharing theirs."""
    from scipy.stats import rankdata

    return rankdata([episode.final for episode in evaluated]), rankdata([episode.highest for episode in evaluated])


def kind_metrics(evaluated: Sequence[EvaluatedEpisode]) -> dict[str, Metric]:
    """Further metrics of episodes of one kind, failures among them: ``final_progress``, ``beyond_truth``, ``mse`` and
    ``stage_accuracy``."""
    return {
        "final_progress": _mean_of(np.array([episode.final for episode in evaluated], float)),
        "beyond_truth": _fraction(_stages(evaluated, operator.gt)),
        "mse": _average(_errors(evaluated, np.square), 0.0),
        "stage_accuracy": _fraction(_stages(evaluated, operator.eq)),
    }


def claimed_metric(counts: Iterable[Count]) -> Metric:
    """Fraction of frames claimed beyond the truth, over clips and recorded probes."""
    return _fraction(_counts((float(count.claimed), float(count.frames)) for count in counts))


Values = npt.NDArray[np.float64]
Counts = tuple[Values, Values]
"""(sum, count) of each episode, (E,) both."""


def _epic(evaluated: Sequence[EvaluatedEpisode]) -> Statistic:
    """EPIC distance of progress to the simulator's, each taken as the reward R(s, a, s') = F(s').

    With S and S' drawn from the frames evaluated, the canonical form of such a reward is F(s') and a constant, so the
    distance is sqrt((1 - r) / 2) with Pearson's r over frames; from sums per episode, so that it can be bootstrapped.
    """
    sums = np.zeros((len(evaluated), 6))
    for i, episode in enumerate(evaluated):
        if episode.simulator is not None:
            x, y = episode.prediction.progress.astype(np.float64), episode.simulator.astype(np.float64)
            sums[i] = len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y

    def statistic(draw: npt.NDArray[np.int64]) -> float:
        count, x, y, xx, yy, xy = sums[draw].sum(axis=0)
        variances = (count * xx - x * x) * (count * yy - y * y)
        if count < 2 or variances <= 0:
            return float("nan")
        return float(np.sqrt(max(0.0, 1 - (count * xy - x * y) / np.sqrt(variances)) / 2))

    return statistic


def _ratio(total: npt.NDArray[np.float64], count: npt.NDArray[np.float64]) -> Statistic:
    def statistic(draw: npt.NDArray[np.int64]) -> float:
        below = float(count[draw].sum())
        return float(total[draw].sum()) / below if below > 0 else float("nan")

    return statistic


def _per_episode(counts: Counts) -> npt.NDArray[np.float64]:
    """Fraction of each episode that has a count, (E,), NaN for the others."""
    return np.divide(counts[0], counts[1], out=np.full(len(counts[0]), np.nan), where=counts[1] > 0)


def _fraction(counts: Counts) -> Metric:
    """A fraction of frames: sum over sum."""
    return Metric(_ratio(*counts), lambda value: mean_interval(_per_episode(counts)))


def _average(counts: Counts, least: float) -> Metric:
    """A mean over frames that is ``least`` or more."""

    def bounds(value: float) -> Interval:
        found = student_interval(_per_episode(counts))
        return Interval(value, max(least, found.low), found.high)

    return Metric(_ratio(*counts), bounds)


def _mean_of(values: npt.NDArray[np.float64]) -> Metric:
    """A mean over episodes of values in [-1, 1]."""

    def bounds(value: float) -> Interval:
        found = student_interval(values)
        return Interval(value, max(-1.0, found.low), min(1.0, found.high))

    return Metric(lambda draw: _mean(values[draw]), bounds)


def _correlation(values: npt.NDArray[np.float64]) -> Metric:
    """A mean over episodes of rank correlations, which of a model that rises are 1 for all but for chance.

    Episodes that are all alike say nothing about how far others may differ, so the interval reaches at least to where
    one more episode, of correlation 0, would bring the mean.
    """
    mean = _mean_of(values)
    count = int(np.isfinite(values).sum())

    def bounds(value: float) -> Interval:
        diluted = value * count / (count + 1)
        student = mean.bounds(value)
        other = Interval(value, *sorted((value, diluted)))
        return other if student is None else hull(other, student)

    return replace(mean, bounds=bounds, enough=count >= FEWEST)


def _auroc(score: npt.NDArray[np.float64], good: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]) -> Statistic:
    """As `metrics.auroc`, the fraction of pairs, from one table of pairs for all draws."""
    wins, losses = np.flatnonzero(known & good), np.flatnonzero(known & ~good)
    apart = score[wins][:, None] - score[losses][None, :]
    beats = np.where(np.isnan(apart), np.nan, (apart > 0) + 0.5 * (apart == 0))

    def statistic(draw: npt.NDArray[np.int64]) -> float:
        times = np.bincount(draw, minlength=len(score))
        first, second = times[wins], times[losses]
        pairs = float(first.sum() * second.sum())
        return float(first @ beats @ second) / pairs if pairs else float("nan")

    return statistic


def _only(counts: Counts, chosen: npt.NDArray[np.bool_]) -> Counts:
    return counts[0] * chosen, counts[1] * chosen


def _mean(values: npt.NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _counts(rows: Iterable[tuple[float, float]]) -> Counts:
    table = np.array(list(rows), dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _errors(evaluated: Sequence[EvaluatedEpisode], size: Callable[[Values], Values]) -> Counts:
    """Sizes of the errors of progress, squared or absolute, summed over the frames with a label."""
    errors = ((e.prediction.progress.astype(np.float64) - e.label)[np.isfinite(e.label)] for e in evaluated)
    return _counts((float(size(error).sum()), len(error)) for error in errors)


def _stages(evaluated: Sequence[EvaluatedEpisode], compare: Callable[..., npt.NDArray[np.bool_]]) -> Counts:
    """Labelled frames whose predicted stage compares with the true one: equal to it, or beyond it."""
    return _counts(
        (float(compare(e.prediction.stage, e.stage)[e.stage >= 0].sum()), float((e.stage >= 0).sum()))
        for e in evaluated
    )


def _calibration_of_stages(evaluated: Sequence[EvaluatedEpisode], bins: int = 10) -> Statistic:
    """As `metrics.expected_calibration_error` over the frames of the episodes drawn, from sums per episode and bin."""
    belief, right, number = (np.zeros((len(evaluated), bins)) for _ in range(3))
    for i, episode in enumerate(evaluated):
        confidence, correct = stage_confidence([episode])
        place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
        belief[i] = np.bincount(place, confidence, bins)
        right[i] = np.bincount(place, correct, bins)
        number[i] = np.bincount(place, minlength=bins)

    def statistic(draw: npt.NDArray[np.int64]) -> float:
        total = float(number[draw].sum())
        gap = np.abs(belief[draw].sum(axis=0) - right[draw].sum(axis=0)).sum()
        return float(gap) / total if total else float("nan")

    return statistic


def stage_confidence(evaluated: Sequence[EvaluatedEpisode]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Probability of the predicted stage, and whether it is the true one, over all labelled frames."""
    confidence = [e.prediction.stage_probabilities.max(axis=1)[e.stage >= 0] for e in evaluated]
    correct = [(e.prediction.stage == e.stage)[e.stage >= 0] for e in evaluated]
    return np.concatenate(confidence).astype(np.float64), np.concatenate(correct).astype(np.float64)


def _true_final(episode: EvaluatedEpisode) -> float:
    if episode.simulator is not None:
        return float(episode.simulator[-1])
    return 1.0 if episode.success else float("nan")


def _grade(episode: EvaluatedEpisode) -> float:
    """How much of the task was done in a human's grading, NaN where there is none."""
    if episode.grade is not None:
        return episode.grade
    return float("nan") if episode.success is None else float(episode.success)


def _classified_right(episode: EvaluatedEpisode) -> float:
    """1 where the rollout is called what it may be called, -1 where not, NaN where nobody knows what it is."""
    if not episode.standing:
        return float("nan")
    return 1.0 if metrics.classify_rollout(episode.final) in episode.standing else -1.0
