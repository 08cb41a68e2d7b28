"""From predictions beside the truth to figures with intervals, failures first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robo_rm.evaluation.evaluated import Judged
from robo_rm.evaluation.probes import Count
from robo_rm.evaluation.statistics import claimed_figure, figures_of, kind_figures, stage_confidence, statistics_of
from robo_rm.metrics import Interval

__all__ = ["FROM_CLIPS", "Judged", "by_kind", "by_probe", "figures", "stage_confidence", "statistics_of"]

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
    """Every figure with its interval over episodes, failures first; NaN where the data do not support it.

    ``recorded`` are the probes that were recorded as episodes, see `probe_recorded`.
    """
    found = {name: figure.interval(len(judged), resamples, seed) for name, figure in figures_of(judged, fps).items()}
    if sum(episode.clips.frames > 0 for episode in judged) < 2:
        # Clips of one episode say nothing of others, however they are drawn.
        for name in FROM_CLIPS:
            found[name] = Interval(found[name].value, float("nan"), float("nan"))
    if recorded:
        clips = [Count(episode.clips.claimed, episode.clips.frames) for episode in judged if episode.clips.frames]
        units = [*clips, *(count for _, count in recorded)]
        found["hallucination_probes"] = claimed_figure(units).interval(len(units), resamples, seed)
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
    judged: Sequence[Judged], fps: float, by: str = "kind", *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """For each kind of episode (or each ``task``): how many there are, and each figure that they support, with its
    interval as ``<figure>_low`` and ``<figure>_high``.

    ``mse``, ``stage_accuracy`` and ``beyond_truth`` are over all episodes of the kind, failures among them.
    """
    table: dict[str, dict[str, float]] = {}
    for kind in sorted({str(getattr(episode, by)) for episode in judged}):
        members = [episode for episode in judged if getattr(episode, by) == kind]
        of_all = kind_figures(members)
        rest = figures_of(members, fps)
        row: dict[str, float] = {
            "episodes": len(members),
            "successes": sum(episode.success is True for episode in members),
        }
        # What the table shows is always there, though it be NaN.
        shown = {**of_all, "boundary_f1": rest.pop("boundary_f1")}
        for name, of in {**rest, **shown}.items():
            figure = of.interval(len(members), resamples, seed)
            if name in shown or np.isfinite(figure.value):
                row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        table[kind] = row
    return table
