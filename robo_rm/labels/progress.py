"""Progress labels from stage annotation (SARM, arXiv 2509.25358, section 3.1).

Stages k = 0..K-1 stand in the order in which the task is done. With frames [s_k, e_k) of stage k in an episode:

    prior       a_k = mean over training episodes of L_k / sum_j L_j,  L_k = e_k - s_k, renormalised to sum 1
    cumulative  P_k = a_0 + .. + a_(k-1)                                (progress when stage k begins)
    label       y_t = P_k + a_k * (t - s_k) / (e_k - s_k)

What failure does to the labels. A segment is *complete* when the episode went on from it to a later stage, or ended in
it successfully. A segment that a failure cut off, or that the robot fell back from (it dropped the cube while
carrying), is not: how far the stage had got at its end is not known. Its frames keep their stage, their progress is
held at the stage's beginning (a plateau: never labelled complete), and ``complete`` is False there, so that neither
the within-stage head nor an error metric takes the plateau for a measurement.

A stage may be skipped (optional) and may come again (after a drop, progress goes back with it). A task that really
does the same thing twice needs two stage names, because a stage index means one place on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from robo_core.errors import LabelError

if TYPE_CHECKING:
    from robo_datasets import Episode

UNLABELLED = -1


class Segment(NamedTuple):
    """Frames [start, end) of one stage; ``complete`` when the stage was finished at ``end``."""

    stage: int
    start: int
    end: int
    complete: bool = True


@dataclass(frozen=True)
class ProgressLabels:
    """Labels of one episode of T frames.

    Attributes:
        stage: (T,) int64, -1 where unlabelled.
        within: (T,) float32, fraction of the stage done in [0, 1); 0 in unfinished segments and where unlabelled.
        progress: (T,) float32 in [0, 1), the label y; NaN where unlabelled.
        complete: (T,) bool, True where the segment was finished, so that ``within`` and ``progress`` are measurements.
    """

    stage: npt.NDArray[np.int64]
    within: npt.NDArray[np.float32]
    progress: npt.NDArray[np.float32]
    complete: npt.NDArray[np.bool_]


def segments_from_frames(stage: npt.ArrayLike, success: bool | None = None, stages: int | None = None) -> list[Segment]:
    """Cut per-frame stage labels (T,) into segments and mark those that were finished.

    Args:
        stage: (T,) integers, 0-based; -1 frames belong to no segment.
        success: the episode's outcome. True: the last segment is complete. False: it is not. None (nobody said): it is
            complete only if it is the task's last stage.
        stages: number of stages K of the task, needed for ``success=None``; the highest in ``stage`` if not given.
    """
    labels = np.asarray(stage, dtype=np.int64).reshape(-1)
    if not labels.size:
        return []
    starts = np.flatnonzero(np.r_[True, np.diff(labels) != 0])
    ends = np.r_[starts[1:], len(labels)]
    runs = [
        (int(labels[start]), int(start), int(end))
        for start, end in zip(starts, ends, strict=True)
        if labels[start] != UNLABELLED
    ]
    last = (stages if stages is not None else int(labels.max()) + 1) - 1
    segments = []
    for index, (number, start, end) in enumerate(runs):
        if index + 1 < len(runs):
            complete = runs[index + 1][0] > number
        else:
            complete = number == last if success is None else success
        segments.append(Segment(number, start, end, complete))
    return segments


def stage_priors(boundaries: Iterable[Sequence[Sequence[int]]], stages: int | None = None) -> npt.NDArray[np.float64]:
    """Mean fraction of an episode spent in each stage, (K,) summing to 1. Give it the training split only.

    Args:
        boundaries: for each episode its segments, as `Segment`, (stage, start, end), or K pairs (start, end) in order.
        stages: K; the highest stage that occurs if not given. Stages that an episode skips count as length 0 in it.

    Raises:
        LabelError: no episode has a labelled frame, or boundaries overlap or name an unknown stage.
    """
    episodes = [_checked(_as_segments(episode), stages, f"episode {i}") for i, episode in enumerate(boundaries)]
    episodes = [episode for episode in episodes if episode]
    if not episodes:
        raise LabelError("no labelled episode to take stage priors from; label stages with store.set_stages first")
    count = stages or 1 + max(segment.stage for episode in episodes for segment in episode)
    fractions = np.zeros((len(episodes), count))
    for row, episode in zip(fractions, episodes, strict=True):
        for segment in episode:
            row[segment.stage] += segment.end - segment.start
    mean = (fractions / fractions.sum(axis=1, keepdims=True)).mean(axis=0)
    return mean / mean.sum()


def cumulative_priors(priors: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """P_0 .. P_K, (K+1,): progress at the beginning of each stage, then 1."""
    cumulative = np.concatenate([[0.0], np.cumsum(np.asarray(priors, dtype=np.float64))])
    return cumulative / cumulative[-1]


def progress_labels(
    boundaries: Sequence[Sequence[int]], priors: npt.ArrayLike, length: int | None = None
) -> npt.NDArray[np.float32]:
    """Progress label y of every frame, (T,) float32 in [0, 1); NaN where no segment lies.

    Args:
        boundaries: one episode's segments, in any form that `stage_priors` takes.
        priors: (K,) from `stage_priors`.
        length: T; the end of the last segment if not given.

    Raises:
        LabelError: segments overlap, are empty, pass ``length`` or name a stage that ``priors`` lacks.
    """
    return label_frames(boundaries, priors, length).progress


def label_frames(
    boundaries: Sequence[Sequence[int]],
    priors: npt.ArrayLike,
    length: int | None = None,
    where: str = "episode",
) -> ProgressLabels:
    """All labels of one episode; arguments and errors as in `progress_labels`, ``where`` names it in errors."""
    fractions = np.asarray(priors, dtype=np.float64)
    segments = _checked(_as_segments(boundaries), len(fractions), where)
    total = length if length is not None else max((segment.end for segment in segments), default=0)
    if segments and segments[-1].end > total:
        raise LabelError(f"{where}: a stage ends at frame {segments[-1].end}, but there are only {total} frames")
    begin = cumulative_priors(fractions)
    stage = np.full(total, UNLABELLED, dtype=np.int64)
    within = np.zeros(total, dtype=np.float32)
    progress = np.full(total, np.nan, dtype=np.float32)
    complete = np.zeros(total, dtype=np.bool_)
    for number, start, end, finished in segments:
        span = slice(start, end)
        done = np.arange(end - start) / (end - start) if finished else np.zeros(end - start)
        stage[span], complete[span], within[span] = number, finished, done
        progress[span] = begin[number] + (begin[number + 1] - begin[number]) * done
    return ProgressLabels(stage, within, progress, complete)


def episode_segments(episode: Episode, stages: int, last: int | None = None) -> list[Segment]:
    """Segments of a stored episode (``.uuid .stage .success``), checked against the number of stages K.

    Args:
        episode: stored episode.
        stages: K.
        last: the last stage of the episode's task, in which an episode of unknown outcome is taken to be finished;
            K - 1 if None.

    Raises:
        LabelError: a frame has a stage outside -1 .. K-1; names episode and frame.
    """
    stage = np.asarray(episode.stage, dtype=np.int64)
    wrong = np.flatnonzero((stage < UNLABELLED) | (stage >= stages))
    if wrong.size:
        raise LabelError(
            f"episode {episode.uuid}, frame {wrong[0]}: stage {stage[wrong[0]]} "
            f"is not one of the store's {stages} stages, nor -1 for unlabelled"
        )
    return segments_from_frames(stage, episode.success, stages if last is None else last + 1)


def last_stage(priors: npt.ArrayLike) -> int:
    """The last stage that a task enters, by its priors (K,): tasks with stages of their own end before K - 1."""
    entered = np.flatnonzero(np.asarray(priors, dtype=np.float64) > 0)
    return int(entered[-1]) if entered.size else len(np.asarray(priors)) - 1


def stored_labels(episode: Episode, priors: npt.ArrayLike) -> ProgressLabels:
    """Labels of a stored episode by the priors (K,) of its task; errors as in `episode_segments`."""
    fractions = np.asarray(priors, dtype=np.float64)
    segments = episode_segments(episode, len(fractions), last_stage(fractions))
    return label_frames(segments, fractions, episode.length, f"episode {getattr(episode, 'uuid', '?')}")


def training_priors(episodes: Iterable[Episode], stages: int, last: int | None = None) -> npt.NDArray[np.float64]:
    """Stage priors (K,) of stored episodes: of those that ended well, as a failure says little of fractions.

    Where none ended well, the finished segments of the others are all there is, and are used. An episode of unknown
    outcome counts as ended well if it ends in the stage ``last`` (K - 1 if None).

    Raises:
        LabelError: nothing to take a prior from; says whether labels are missing, or no stage was finished.
    """
    whole, finished = [], []
    labelled = failed = 0
    for episode in episodes:
        segments = episode_segments(episode, stages, last)
        labelled, failed = labelled + bool(segments), failed + (bool(segments) and episode.success is False)
        if segments and segments[-1].complete:
            whole.append(segments)
        else:
            finished.append([segment for segment in segments if segment.complete])
    if labelled and not whole and not any(finished):
        raise LabelError(
            f"none of the {labelled} labelled episodes finished a stage ({failed} marked as failures), so how long a "
            "stage takes is not known; add a success, or correct outcomes with store.set_success"
        )
    return stage_priors(whole or finished, stages)


def _as_segments(boundaries: Sequence[Sequence[int]]) -> list[Segment]:
    return [
        Segment(index, item[0], item[1])
        if len(item) == 2
        else Segment(item[0], item[1], item[2], bool(item[3]) if len(item) > 3 else True)
        for index, item in enumerate(boundaries)
    ]


def _checked(segments: list[Segment], stages: int | None, where: str) -> list[Segment]:
    """Segments in order of time, or the error that names the first fault."""
    ordered = sorted((s for s in segments), key=lambda segment: (segment.start, segment.end))
    reached = 0
    for segment in ordered:
        if segment.stage < 0 or (stages is not None and segment.stage >= stages):
            raise LabelError(f"{where}, frame {segment.start}: stage {segment.stage} is not one of {stages} stages")
        if segment.start < 0 or segment.end <= segment.start:
            raise LabelError(f"{where}: stage {segment.stage} has the empty span [{segment.start}, {segment.end})")
        if segment.start < reached:
            raise LabelError(f"{where}, frame {segment.start}: stages overlap until frame {reached}")
        reached = segment.end
    return ordered
