"""Progress labels: the paper's formula, and what failures, drops, gaps and skipped stages do to it."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_core.errors import LabelError
from robo_rm.labels.progress import (
    Segment,
    cumulative_priors,
    episode_segments,
    label_frames,
    progress_labels,
    segments_from_frames,
    stage_priors,
    training_priors,
)

STAGES = 4
frame_labels = st.lists(st.tuples(st.integers(-1, STAGES - 1), st.integers(1, 12)), min_size=1, max_size=8).map(
    lambda runs: np.repeat([stage for stage, _ in runs], [count for _, count in runs])
)
priors_of_4 = st.lists(st.floats(0.05, 1.0), min_size=STAGES, max_size=STAGES).map(
    lambda shares: np.array(shares) / sum(shares)
)


def episode(stage, success=None, uuid="e"):
    return SimpleNamespace(stage=np.array(stage, dtype=np.int16), success=success, uuid=uuid)


def test_prior_is_the_mean_share_of_a_stage():
    priors = stage_priors([[(0, 2), (2, 10)], [(0, 5), (5, 10)]])
    assert priors == pytest.approx([(0.2 + 0.5) / 2, (0.8 + 0.5) / 2])


def test_prior_counts_a_skipped_stage_as_nothing():
    priors = stage_priors([[(0, 0, 5), (2, 5, 10)], [(0, 0, 2), (1, 2, 5), (2, 5, 10)]])
    assert priors == pytest.approx([0.35, 0.15, 0.5])


def test_label_rises_evenly_within_a_stage():
    labels = progress_labels([(0, 2), (2, 6)], [0.4, 0.6])
    assert labels == pytest.approx([0.0, 0.2, 0.4, 0.55, 0.7, 0.85])


def test_unlabelled_frames_have_no_progress():
    labels = progress_labels([(0, 1, 3), (1, 4, 6)], [0.5, 0.5], length=7)
    assert np.isnan(labels).tolist() == [True, False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("success", "stages", "complete"), [(True, 3, True), (False, 2, False), (None, 2, True), (None, 3, False)]
)
def test_last_segment_is_complete_by_outcome(success, stages, complete):
    assert segments_from_frames([0, 0, 1, 1], success, stages)[-1].complete is complete


def test_failure_keeps_the_last_stage_reached_and_plateaus():
    segments = segments_from_frames([0, 0, 1, 1, 1], success=False, stages=2)
    labels = label_frames(segments, [0.5, 0.5])
    assert labels.progress == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.5])
    assert labels.complete.tolist() == [True, True, False, False, False]


def test_a_stage_that_the_robot_fell_back_from_is_unfinished():
    segments = segments_from_frames([0, 1, 2, 2, 1, 2, 3], success=True, stages=4)
    assert [s.complete for s in segments] == [True, True, False, True, True, True]


def test_a_gap_inside_a_stage_does_not_finish_it():
    assert segments_from_frames([0, -1, 0, 1], success=True, stages=2)[0].complete is False


@given(frame_labels, st.sampled_from([True, False, None]), priors_of_4)
def test_labels_keep_every_promise(stage, success, priors):
    labels = label_frames(segments_from_frames(stage, success, STAGES), priors, len(stage))
    begin = cumulative_priors(priors)
    known = stage >= 0
    assert np.array_equal(labels.stage, stage)
    assert np.array_equal(np.isnan(labels.progress), ~known)
    assert not labels.complete[~known].any()
    low, high = begin[stage[known]], begin[stage[known] + 1]
    # Never labelled complete: a frame's progress lies in its stage, and short of its end.
    assert (labels.progress[known] >= low - 1e-6).all()
    assert (labels.progress[known] < high + 1e-6).all()
    assert (labels.progress[known] < 1).all()
    # Plateau: where the segment is unfinished, progress stays at the beginning of the stage.
    still = known & ~labels.complete
    assert np.allclose(labels.progress[still], begin[stage[still]], atol=1e-6)
    if success is False and known.any():
        last = np.flatnonzero(known)[-1]
        assert not labels.complete[last]


@given(st.lists(st.lists(st.integers(1, 30), min_size=3, max_size=3), min_size=1, max_size=6))
def test_priors_are_shares_and_only_of_what_is_given(lengths):
    edges = [np.concatenate([[0], np.cumsum(row)]) for row in lengths]
    boundaries = [list(itertools.pairwise(edge)) for edge in edges]
    priors = stage_priors(boundaries)
    expected = np.mean([np.array(row) / sum(row) for row in lengths], axis=0)
    assert priors == pytest.approx(expected / expected.sum())
    assert priors.sum() == pytest.approx(1)


def test_priors_leave_failures_out_where_there_are_successes():
    good = episode([0] * 5 + [1] * 5, True)
    bad = episode([0] * 50, False)
    assert training_priors([good, bad], 2) == pytest.approx([0.5, 0.5])


def test_priors_of_failures_alone_use_their_finished_stages():
    bad = [episode([0] * 6 + [1] * 2 + [2], False), episode([0] * 6 + [1] * 2 + [2] * 40, False)]
    assert training_priors(bad, 3) == pytest.approx([0.75, 0.25, 0.0])


@pytest.mark.parametrize(
    ("boundaries", "says"),
    [
        ([(0, 5), (4, 8)], "frame 4: stages overlap until frame 5"),
        ([(0, 5), (5, 5)], r"empty span \[5, 5\)"),
        ([(7, 0, 5)], "stage 7 is not one of 2 stages"),
        ([(0, 5), (5, 30)], "ends at frame 30, but there are only 20 frames"),
    ],
)
def test_wrong_boundaries_are_named(boundaries, says):
    with pytest.raises(LabelError, match=says):
        progress_labels(boundaries, [0.5, 0.5], length=20)


def test_no_labelled_episode_is_an_error():
    with pytest.raises(LabelError, match="no labelled episode"):
        stage_priors([[], []])


def test_an_unknown_stage_names_episode_and_frame():
    with pytest.raises(LabelError, match="episode abc, frame 2: stage 5"):
        episode_segments(episode([0, 1, 5], uuid="abc"), 3)


def test_segments_may_be_given_whole():
    labels = progress_labels([Segment(0, 0, 2), Segment(1, 2, 4, False)], [0.5, 0.5])
    assert labels == pytest.approx([0, 0.25, 0.5, 0.5])
