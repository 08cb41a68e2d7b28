"""From predictions beside the truth to figures with intervals, failures first.

Each figure is written as a function of which episodes are drawn, so that one bootstrap serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from robo_rm import metrics
from robo_rm.judging.probes import Count, ProbeClips
from robo_rm.metrics import Interval, bootstrap_interval
from robo_rm.models.prediction import Prediction


@dataclass(frozen=True)
class Judged:
    """One episode of T frames: what the model says and what is true."""

    uuid: str
    kind: str
    """Quality class where the recorder noted one, else the task."""
    success: bool | None
    prediction: Prediction
    stage: npt.NDArray[np.int64]
    """(T,), -1 where unlabelled."""
    label: npt.NDArray[np.float32]
    """(T,) progress label, NaN where none was measured."""
    simulator: npt.NDArray[np.float32] | None = None
    """(T,) the simulator's own progress."""
    clips: ProbeClips = field(default_factory=ProbeClips)
    """What the model says of clips made from the episode."""
    task: str = ""
    chance: float | None = None
    """Probability of success that a calibrated model gives the episode's end; None: final progress stands for it."""

    @property
    def failed(self) -> bool:
        """Whether it is known to have failed."""
        return self.success is False

    @property
    def final(self) -> float:
        """Predicted progress at the last frame."""
        return float(self.prediction.progress[-1])

    @property
    def highest(self) -> float:
        """Highest predicted progress."""
        return float(self.prediction.progress.max())

    @property
    def error(self) -> float:
        """How wrong the model is here, for sorting: mean absolute error, plus the share of frames claimed too far."""
        mean = metrics.mae(self.prediction.progress, self.label)
        claimed = metrics.hallucination(self.prediction.stage, self.stage) if self.failed else 0.0
        wrong_end = self.final if self.failed else 1.0 - self.final
        return float(np.nansum([mean, claimed, 0.5 * wrong_end]))


FROM_CLIPS = ("hallucination_probes", "voc_reversed")
"""Figures over the episodes from which probe clips were made, which may be few."""


def figures(
    judged: Sequence[Judged],
    fps: float,
    *,
    recorded: Sequence[tuple[str, Count]] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every figure with its bootstrap interval over episodes, failures first; NaN where the data do not support it.

    ``recorded`` are the probes that were recorded as episodes, see `probe_recorded`.
    """
    found = {
        name: bootstrap_interval(statistic, len(judged), resamples=resamples, seed=seed)
        for name, statistic in statistics_of(judged, fps).items()
    }
    if sum(episode.clips.frames > 0 for episode in judged) < 2:
        # Clips of one episode say nothing of others, however they are drawn.
        for name in FROM_CLIPS:
            found[name] = Interval(found[name].value, float("nan"), float("nan"))
    if recorded:
        clips = [Count(episode.clips.claimed, episode.clips.frames) for episode in judged if episode.clips.frames]
        units = _counts((count.claimed, count.frames) for count in [*clips, *(count for _, count in recorded)])
        claimed = bootstrap_interval(_ratio(*units), len(units[0]), resamples=resamples, seed=seed)
        found["hallucination_probes"] = claimed
    return found


def by_probe(judged: Sequence[Judged], recorded: Sequence[tuple[str, Count]] = ()) -> dict[str, dict[str, float]]:
    """For each probe: clips, frames, and the share of frames claimed beyond the truth."""
    made = [(name, count) for episode in judged for name, count in episode.clips.counts.items()]
    table: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(name for name, _ in [*made, *recorded]):
        counts = [count for name, count in [*made, *recorded] if name == kind]
        frames = sum(count.frames for count in counts)
        claimed = sum(count.claimed for count in counts) / frames if frames else float("nan")
        table[kind] = {"clips": len(counts), "frames": frames, "claimed": claimed}
    return table


def by_kind(
    judged: Sequence[Judged], fps: float, of: str = "kind", *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """For each kind of episode (or each ``task``): how many there are, and each figure that they support, with its
    interval as ``<figure>_low`` and ``<figure>_high``.

    ``mse``, ``stage_accuracy`` and ``beyond_truth`` are over all episodes of the kind, failures among them.
    """
    table: dict[str, dict[str, float]] = {}
    for kind in sorted({str(getattr(episode, of)) for episode in judged}):
        members = [episode for episode in judged if getattr(episode, of) == kind]
        final = np.array([episode.final for episode in members])
        of_all: dict[str, Statistic] = {
            "final_progress": lambda draw, final=final: _mean(final[draw]),  # type: ignore[misc]
            "beyond_truth": _ratio(*_beyond(members)),
            "mse": _ratio(*_squared_errors(members)),
            "stage_accuracy": _ratio(*_correct_stages(members)),
        }
        rest = statistics_of(members, fps)
        row: dict[str, float] = {
            "episodes": len(members),
            "successes": sum(episode.success is True for episode in members),
        }
        # What the table shows is always there, though it be NaN.
        shown = {**of_all, "boundary_f1": rest.pop("boundary_f1")}
        for name, statistic in {**rest, **shown}.items():
            figure = bootstrap_interval(statistic, len(members), resamples=resamples, seed=seed)
            if name in shown or np.isfinite(figure.value):
                row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        table[kind] = row
    return table


Statistic = Callable[[npt.NDArray[np.int64]], float]


def statistics_of(judged: Sequence[Judged], fps: float) -> dict[str, Statistic]:
    """Each figure as a function of which episodes are drawn."""
    known = np.array([episode.success is not None for episode in judged])
    good = np.array([episode.success is True for episode in judged])
    final = np.array([episode.final for episode in judged])
    highest = np.array([episode.highest for episode in judged])
    chance = np.array([episode.final if episode.chance is None else episode.chance for episode in judged])
    kept = np.array([not episode.failed for episode in judged])
    failed = ~kept
    value_order = metrics.voc_per_episode([episode.prediction.progress for episode in judged])
    turned = np.full(len(judged), np.nan)
    for i, episode in enumerate(judged):
        if episode.clips.reversed_progress is not None:
            turned[i] = metrics.voc_per_episode([episode.clips.reversed_progress])[0]
    counts = np.array(
        [metrics.boundary_counts(e.prediction.stage, e.stage, fps) for e in judged], dtype=np.float64
    ).reshape(-1, 3)
    true_final = np.array([_true_final(episode) for episode in judged])
    right_call = np.array([_judged_right(e, true) for e, true in zip(judged, true_final, strict=True)])
    squared, absolute = _squared_errors(judged), _absolute_errors(judged)
    stages, beyond = _correct_stages(judged), _beyond(judged)
    claimed = _counts((float(episode.clips.claimed), float(episode.clips.frames)) for episode in judged)

    def over_known(figure: Callable[..., float], score: npt.NDArray[np.float64]) -> Statistic:
        return lambda draw: figure(score[draw][known[draw]], good[draw][known[draw]])

    def tau(draw: npt.NDArray[np.int64]) -> float:
        usable = draw[np.isfinite(true_final[draw])]
        return metrics.kendall_tau(final[usable], true_final[usable])

    return {
        "auroc": over_known(metrics.auroc, final),
        "auroc_max": over_known(metrics.auroc, highest),
        "fpr_at_gold": over_known(metrics.fpr_at_gold, final),
        "hallucination": _ratio(*_only(beyond, failed)),
        "hallucination_probes": _ratio(*claimed),
        "stage_accuracy_failures": _ratio(*_only(stages, failed)),
        "rho": lambda draw: _mean(right_call[draw]),
        "kendall_tau": tau,
        "epic": _epic(judged),
        "mse": _ratio(*_only(squared, kept)),
        "mae": _ratio(*_only(absolute, kept)),
        "voc": lambda draw: _mean(np.where(kept, value_order, np.nan)[draw]),
        "voc_reversed": lambda draw: _mean(turned[draw]),
        "stage_accuracy": _ratio(*_only(stages, kept)),
        "boundary_f1": _ratio(2 * counts[:, 0], counts[:, 1] + counts[:, 2]),
        "ece_stage": _calibration_of_stages(judged),
        "ece_success": over_known(metrics.expected_calibration_error, np.clip(chance, 0, 1)),
    }


Counts = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""(sum, count) of each episode, (E,) both."""


def _epic(judged: Sequence[Judged]) -> Statistic:
    """EPIC distance of progress to the simulator's, each taken as the reward R(s, a, s') = F(s').

    With S and S' drawn from the frames judged, the canonical form of such a reward is F(s') and a constant, so the
    distance is sqrt((1 - r) / 2) with Pearson's r over frames; from sums per episode, so that it can be bootstrapped.
    """
    sums = np.zeros((len(judged), 6))
    for i, episode in enumerate(judged):
        if episode.simulator is not None:
            x, y = episode.prediction.progress.astype(np.float64), episode.simulator.astype(np.float64)
            sums[i] = len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y

    def statistic(draw: npt.NDArray[np.int64]) -> float:
        count, x, y, xx, yy, xy = sums[draw].sum(axis=0)
        spread = (count * xx - x * x) * (count * yy - y * y)
        if count < 2 or spread <= 0:
            return float("nan")
        return float(np.sqrt(max(0.0, 1 - (count * xy - x * y) / np.sqrt(spread)) / 2))

    return statistic


def _ratio(total: npt.NDArray[np.float64], count: npt.NDArray[np.float64]) -> Statistic:
    def statistic(draw: npt.NDArray[np.int64]) -> float:
        below = float(count[draw].sum())
        return float(total[draw].sum()) / below if below > 0 else float("nan")

    return statistic


def _only(counts: Counts, chosen: npt.NDArray[np.bool_]) -> Counts:
    return counts[0] * chosen, counts[1] * chosen


def _mean(values: npt.NDArray[np.float64]) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def _counts(rows: Iterable[tuple[float, float]]) -> Counts:
    table = np.array(list(rows), dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _squared_errors(judged: Sequence[Judged]) -> Counts:
    return _counts((float(np.square(e).sum()), len(e)) for e in map(_errors, judged))


def _absolute_errors(judged: Sequence[Judged]) -> Counts:
    return _counts((float(np.abs(e).sum()), len(e)) for e in map(_errors, judged))


def _errors(episode: Judged) -> npt.NDArray[np.float64]:
    known = np.isfinite(episode.label)
    return np.asarray(episode.prediction.progress[known], np.float64) - episode.label[known]


def _correct_stages(judged: Sequence[Judged]) -> Counts:
    return _counts(
        (float((e.prediction.stage == e.stage)[e.stage >= 0].sum()), float((e.stage >= 0).sum())) for e in judged
    )


def _beyond(judged: Sequence[Judged]) -> Counts:
    return _counts(
        (float((e.prediction.stage > e.stage)[e.stage >= 0].sum()), float((e.stage >= 0).sum())) for e in judged
    )


def _calibration_of_stages(judged: Sequence[Judged], bins: int = 10) -> Statistic:
    """As `metrics.expected_calibration_error` over the frames of the episodes drawn, from sums per episode and bin."""
    belief, right, number = (np.zeros((len(judged), bins)) for _ in range(3))
    for i, episode in enumerate(judged):
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


def stage_confidence(judged: Sequence[Judged]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Probability of the predicted stage, and whether it is the true one, over all labelled frames."""
    confidence = [e.prediction.stage_probabilities.max(axis=1)[e.stage >= 0] for e in judged]
    correct = [(e.prediction.stage == e.stage)[e.stage >= 0] for e in judged]
    return np.concatenate(confidence).astype(np.float64), np.concatenate(correct).astype(np.float64)


def _true_final(episode: Judged) -> float:
    if episode.simulator is not None:
        return float(episode.simulator[-1])
    return 1.0 if episode.success else float("nan")


def _judged_right(episode: Judged, true_final: float) -> float:
    """1 where the rollout is called what it is, -1 where not, NaN where nobody knows what it is."""
    if episode.success is None or not np.isfinite(true_final):
        return float("nan")
    # A failure is never called a success, however far it got before it fell.
    truth = "success" if episode.success else metrics.judge_rollout(min(true_final, 0.84))
    return 1.0 if metrics.judge_rollout(episode.final) == truth else -1.0
