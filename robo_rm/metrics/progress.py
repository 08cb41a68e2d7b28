"""Metrics of a reward model, each a plain function of arrays.

Conventions: progress (T,) in [0, 1]; stages (T,) integers, -1 where unlabelled. A metric that the data cannot support
(one class only, constant progress, nothing labelled) is NaN, never a flattering 0 or 1. Where a function takes "one
episode or several", several are given as a list of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Episodes: TypeAlias = npt.NDArray[np.generic] | Sequence[npt.ArrayLike]
"""One episode (T,), or a list of episodes."""
OUTCOMES = ("fail", "partial", "success")


def mse(predicted: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Mean squared error of progress over the labelled frames (those whose label is not NaN)."""
    error = _errors(predicted, label)
    return float(np.square(error).mean()) if len(error) else float("nan")


def mae(predicted: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Mean absolute error of progress over the labelled frames."""
    error = _errors(predicted, label)
    return float(np.abs(error).mean()) if len(error) else float("nan")


def _errors(predicted: npt.ArrayLike, label: npt.ArrayLike) -> npt.NDArray[np.float64]:
    guess, truth = _pair(predicted, label, np.float64)
    known = np.isfinite(truth)
    return np.asarray(guess[known] - truth[known])


def voc(progress: Episodes) -> float:
    """Value-order correlation (GVL, arXiv 2411.04549): Spearman's rank correlation of time and progress.

    Args:
        progress: one episode (T,), or a list of episodes.

    Returns:
        In [-1, 1]; for several episodes the mean over those that have a value. NaN where progress is constant or
        shorter than two frames. Count the NaN of `voc_per_episode` apart: a model that says nothing is not a model
        that is half right.
    """
    values = voc_per_episode(_as_list(progress))
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def voc_per_episode(progress: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float64]:
    """Value-order correlation of each episode, (E,); NaN where it is not defined."""
    from scipy.stats import spearmanr

    values = np.full(len(progress), np.nan)
    for i, episode in enumerate(progress):
        array = np.asarray(episode, dtype=np.float64)
        # A NaN in the progress makes the metric undefined rather than ranking it first or last.
        if len(array) < 2 or not np.isfinite(array).all() or np.ptp(array) == 0:
            continue
        values[i] = float(spearmanr(np.arange(len(array)), array).statistic)
    return values


def stage_accuracy(predicted: npt.ArrayLike, true: npt.ArrayLike) -> float:
    """Fraction of the labelled frames whose predicted stage is the true one."""
    guess, truth = _pair(predicted, true, np.int64)
    known = truth >= 0
    return float((guess[known] == truth[known]).mean()) if known.any() else float("nan")


def stage_confusion(predicted: npt.ArrayLike, true: npt.ArrayLike, stages: int) -> npt.NDArray[np.int64]:
    """Frames counted by true stage (rows) and predicted stage (columns), (K, K)."""
    guess, truth = _pair(predicted, true, np.int64)
    known = truth >= 0
    counts = np.zeros((stages, stages), dtype=np.int64)
    np.add.at(counts, (truth[known], guess[known]), 1)
    return counts


def hallucination(predicted: npt.ArrayLike, true: npt.ArrayLike) -> float:
    """Fraction of the labelled frames whose predicted stage is beyond the true stage.

    Meant for failures and probe clips, where claiming more than happened is what ruins a policy.
    """
    guess, truth = _pair(predicted, true, np.int64)
    known = truth >= 0
    return float((guess[known] > truth[known]).mean()) if known.any() else float("nan")


def boundaries(stage: npt.ArrayLike) -> list[tuple[int, int]]:
    """(frame, stage entered) of every change between two labelled frames."""
    array = np.asarray(stage, dtype=np.int64)
    change = np.flatnonzero((array[1:] != array[:-1]) & (array[1:] >= 0) & (array[:-1] >= 0)) + 1
    return [(int(t), int(array[t])) for t in change]


def boundary_counts(
    predicted: npt.ArrayLike, true: npt.ArrayLike, fps: float, tolerance: float = 0.5
) -> tuple[int, int, int]:
    """(matched, predicted, true) stage boundaries of one episode.

    Two boundaries match when they enter the same stage within ``tolerance`` seconds; each is used once. Predictions
    over unlabelled frames are left out.
    """
    guess, truth = _pair(predicted, true, np.int64)
    found, real = boundaries(np.where(truth >= 0, guess, -1)), boundaries(truth)
    reach = tolerance * fps + 1e-9
    matched = 0
    for stage in {stage for _, stage in real}:
        left = [t for t, s in found if s == stage]
        right = [t for t, s in real if s == stage]
        # Both lists rise and the tolerance is one for all: taking the earliest pair that fits matches the most.
        i = j = 0
        while i < len(left) and j < len(right):
            if abs(left[i] - right[j]) <= reach:
                matched, i, j = matched + 1, i + 1, j + 1
            elif left[i] < right[j]:
                i += 1
            else:
                j += 1
    return matched, len(found), len(real)


def boundary_f1(predicted: Episodes, true: Episodes, fps: float, tolerance: float = 0.5) -> float:
    """F1 of stage boundaries within ``tolerance`` seconds, over one episode or several (counts added up).

    NaN where neither side has a boundary.
    """
    pairs = zip(_as_list(predicted), _as_list(true), strict=True)
    counts = np.array([boundary_counts(guess, truth, fps, tolerance) for guess, truth in pairs])
    matched, found, real = counts.sum(axis=0) if len(counts) else (0, 0, 0)
    return float(2 * matched / (found + real)) if found + real else float("nan")


def auroc(score: npt.ArrayLike, success: npt.ArrayLike) -> float:
    """Area under the ROC curve of success against failure: the chance that a success scores above a failure.

    Args:
        score: (N,) one number per episode, such as its final or its highest progress. Ties count one half.
        success: (N,) booleans.

    Returns:
        In [0, 1]; NaN where one of the two outcomes is missing.
    """
    from sklearn.metrics import roc_auc_score

    values, good = np.asarray(score, dtype=np.float64), np.asarray(success, dtype=bool)
    _same_length(values, good)
    if not good.any() or good.all() or not np.isfinite(values).all():
        return float("nan")
    return float(roc_auc_score(good, values))


def roc_curve(score: npt.ArrayLike, success: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """False- and true-positive rates at every threshold, from (0, 0) to (1, 1).

    Raises:
        ValueError: one of the two outcomes is missing, or a score is not a number.
    """
    from sklearn.metrics import roc_curve as curve

    values, good = np.asarray(score, dtype=np.float64), np.asarray(success, dtype=bool)
    _same_length(values, good)
    if not good.any() or good.all() or not np.isfinite(values).all():
        raise ValueError("a ROC curve needs successes, failures, and a score of each")
    false, true, _ = curve(good, values, drop_intermediate=False)
    return np.asarray(false), np.asarray(true)


RECALL = 0.95


def threshold_at_recall(successes: npt.ArrayLike, recall: float = RECALL) -> float:
    """The highest threshold which lets at least ``recall`` of the successes (S,) pass; NaN without any."""
    wins = np.sort(np.asarray(successes, dtype=np.float64))
    return float(wins[len(wins) - int(np.ceil(recall * len(wins)))]) if len(wins) else float("nan")


def fpr_at_recall(score: npt.ArrayLike, success: npt.ArrayLike, recall: float = RECALL) -> float:
    """Fraction of failures that pass the threshold which lets ``recall`` of the true successes pass.

    It is the false-positive rate to expect when progress replaces the task reward (a success detector). The
    threshold is chosen on the successes alone, so no failure that is evaluated has a part in it; how many *other*
    successes pass such a threshold is `recall_at_threshold`. NaN where one of the two outcomes is missing.
    """
    values, good = np.asarray(score, dtype=np.float64), np.asarray(success, dtype=bool)
    _same_length(values, good)
    if not good.any() or good.all() or not np.isfinite(values).all():
        return float("nan")
    return float((values[~good] >= threshold_at_recall(values[good], recall)).mean())


def recall_at_threshold(score: npt.ArrayLike, success: npt.ArrayLike, recall: float = RECALL) -> float:
    """Fraction of successes that pass the threshold of `fpr_at_recall` chosen on the other successes (leave one out).

    Of few successes the threshold is the lowest one, which the next success undercuts one time in so many; NaN with
    fewer than two.
    """
    values, good = np.asarray(score, dtype=np.float64), np.asarray(success, dtype=bool)
    _same_length(values, good)
    wins = values[good]
    if len(wins) < 2 or not np.isfinite(wins).all():
        return float("nan")
    others = [threshold_at_recall(np.delete(wins, place), recall) for place in range(len(wins))]
    return float((wins >= np.array(others)).mean())


def kendall_tau(predicted: npt.ArrayLike, true: npt.ArrayLike) -> float:
    """Kendall's tau-b between predicted and true final progress across rollouts; NaN where either is constant."""
    from scipy.stats import kendalltau

    guess, truth = _pair(predicted, true, np.float64)
    if len(guess) < 2 or not (np.isfinite(guess).all() and np.isfinite(truth).all()):
        return float("nan")
    if np.ptp(guess) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(kendalltau(guess, truth, variant="b").statistic)


def classify_rollout(final_progress: float, success_at: float = 0.85, partial_at: float = 0.35) -> str:
    """Call a rollout ``success``, ``partial`` or ``fail`` by its final progress."""
    if final_progress >= success_at:
        return "success"
    return "partial" if final_progress >= partial_at else "fail"


def rho(evaluated: Sequence[str], true: Sequence[str]) -> float:
    """(correct - wrong) / n over rollouts called success, partial or fail (SARM, arXiv 2509.25358), in [-1, 1]."""
    if len(evaluated) != len(true):
        raise ValueError(f"{len(evaluated)} classifications for {len(true)} rollouts")
    if not len(true):
        return float("nan")
    correct = sum(guess == truth for guess, truth in zip(evaluated, true, strict=True))
    return (2 * correct - len(true)) / len(true)


def reliability_bins(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean confidence, fraction correct, count) of each non-empty bin of equal width over [0, 1]."""
    belief, hit = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    _same_length(belief, hit)
    place = np.clip((belief * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.flatnonzero(count)
    mean_belief = np.bincount(place, belief, bins)[filled] / count[filled]
    mean_hit = np.bincount(place, hit, bins)[filled] / count[filled]
    return [(float(b), float(h), int(n)) for b, h, n in zip(mean_belief, mean_hit, count[filled], strict=True)]


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy, weighted by count (Guo et al., arXiv 1706.04599, equation 3)."""
    table = reliability_bins(confidence, correct, bins)
    total = sum(n for _, _, n in table)
    return sum(abs(b - h) * n for b, h, n in table) / total if total else float("nan")


def _as_list(values: Episodes) -> list[npt.NDArray[np.generic]]:
    """One episode's array, or those of several, as a list."""
    if isinstance(values, np.ndarray):
        single = values.ndim == 1 and values.dtype != object
    else:
        single = len(values) > 0 and np.ndim(values[0]) == 0
    return [np.asarray(values)] if single else [np.asarray(episode) for episode in values]


def _pair(a: npt.ArrayLike, b: npt.ArrayLike, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    first: np.ndarray = np.asarray(a, dtype=dtype)
    second: np.ndarray = np.asarray(b, dtype=dtype)
    _same_length(first, second)
    return first, second


def _same_length(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the two arrays differ in shape: {a.shape} and {b.shape}")
