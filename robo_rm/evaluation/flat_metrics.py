"""From predictions beside the truth to metrics with intervals, failures first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robo_rm.evaluation.evaluated import EvaluatedEpisode
from robo_rm.evaluation.probes import Count
from robo_rm.evaluation.statistics import claimed_metric, kind_metrics, metrics_of, stage_confidence, statistics_of
from robo_rm.metrics import Interval

__all__ = [
    "FROM_CLIPS",
    "EvaluatedEpisode",
    "by_kind",
    "by_probe",
    "compute_metrics",
    "stage_confidence",
    "statistics_of",
]

FROM_CLIPS = ("hallucination_probes", "voc_reversed")
"""Metrics over the episodes from which probe clips were made, which may be few."""


def compute_metrics(
    evaluated: Sequence[EvaluatedEpisode],
    fps: float,
    *,
    recorded: Sequence[tuple[str, Count]] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every metric with its interval over episodes, failures first; NaN where the data do not support it.

    ``recorded`` are the probes that were recorded as episodes, see `probe_recorded`.
    """
    found = {
        name: metric.interval(len(evaluated), resamples, seed) for name, metric in metrics_of(evaluated, fps).items()
    }
    if sum(episode.clips.frames > 0 for episode in evaluated) < 2:
        # Clips of one episode say nothing of others, however they are drawn.
        for name in FROM_CLIPS:
            found[name] = Interval(found[name].value, float("nan"), float("nan"))
    if recorded:
        clips = [Count(episode.clips.claimed, episode.clips.frames) for episode in evaluated if episode.clips.frames]
        units = [*clips, *(count for _, count in recorded)]
        found["hallucination_probes"] = claimed_metric(units).interval(len(units), resamples, seed)
    return found


def by_probe(
    evaluated: Sequence[EvaluatedEpisode], recorded: Sequence[tuple[str, Count]] = ()
) -> dict[str, dict[str, float]]:
    """For each probe: clips, frames, and the fraction of frames claimed beyond the truth."""
    made = [(name, count) for episode in evaluated for name, count in episode.clips.counts.items()]
    table: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(name for name, _ in [*made, *recorded]):
        counts = [count for name, count in [*made, *recorded] if name == kind]
        frames = sum(count.frames for count in counts)
        claimed = sum(count.claimed for count in counts) / frames if frames else float("nan")
        table[kind] = {"clips": len(counts), "frames": frames, "claimed": claimed}
    return table


def by_kind(
    evaluated: Sequence[EvaluatedEpisode], fps: float, by: str = "kind", *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """For each kind of episode (or each ``task``): how many there are, and each metric that they support, with its
    interval as ``<metric>_low`` and ``<metric>_high``.

    ``mse``, ``stage_accuracy`` and ``beyond_truth`` are over all episodes of the kind, failures among them.
    """
    table: dict[str, dict[str, float]] = {}
    for kind in sorted({str(getattr(episode, by)) for episode in evaluated}):
        members = [episode for episode in evaluated if getattr(episode, by) == kind]
        of_all = kind_metrics(members)
        rest = metrics_of(members, fps)
        row: dict[str, float] = {
            "episodes": len(members),
            "successes": sum(episode.success is True for episode in members),
        }
        # What the table shows is always there, though it be NaN.
        shown = {**of_all, "boundary_f1": rest.pop("boundary_f1")}
        for name, of in {**rest, **shown}.items():
            metric = of.interval(len(members), resamples, seed)
            if name in shown or np.isfinite(metric.value):
                row |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
        table[kind] = row
    return table
