"""The index plan: images, states and labels of a window come from the same frames, whatever the augmentation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rm.labels.plan import WindowShape, draw_windows, regular_window
from robo_rm.labels.progress import label_frames, segments_from_frames
from robo_rm.settings import PlanSettings

settings_of_plans = st.builds(
    PlanSettings,
    stretch=st.floats(0, 2),
    jitter=st.floats(0, 1),
    rewind=st.sampled_from([0.0, 0.5, 1.0]),
    rewind_frames=st.integers(1, 9),
    pause=st.sampled_from([0.0, 0.5, 1.0]),
    hover=st.sampled_from([0.0, 0.5, 1.0]),
    hold=st.sampled_from([0.0, 0.5, 1.0]),
)
shapes = st.builds(WindowShape, history=st.integers(1, 9), gap=st.integers(1, 12))
lengths = st.lists(st.integers(1, 90), min_size=1, max_size=4)


def labels_of(length, success=True):
    stage = np.minimum(np.arange(length) * 3 // length, 2)
    return label_frames(segments_from_frames(stage, success, 3), [0.2, 0.3, 0.5], length)


@given(lengths, shapes, settings_of_plans, st.integers(0, 2**32 - 1))
def test_an_image_never_carries_another_frames_label(sizes, shape, settings, seed):
    labels = [labels_of(size, success=bool(i % 2)) for i, size in enumerate(sizes)]
    windows = draw_windows(np.random.default_rng(seed), labels, np.arange(len(sizes)), shape, settings)
    assert windows.frames.shape == (len(sizes), shape.history + 2)
    for row, size in enumerate(sizes):
        frames, truth = windows.frames[row], labels[row]
        assert frames.min() >= 0
        assert frames.max() < size
        assert frames[0] == 0
        # Every label is the label of the very frame that is shown.
        assert np.array_equal(windows.stage[row], truth.stage[frames])
        assert np.array_equal(windows.within[row], truth.within[frames])
        assert np.array_equal(windows.progress[row], truth.progress[frames], equal_nan=True)
        assert np.array_equal(windows.complete[row], truth.complete[frames])
        assert not windows.supervised[row, 0]
        seen = windows.supervised[row]
        assert seen[1]
        # Padding stands at the end only.
        assert not np.any(np.diff(seen[1:].astype(int)) > 0)


@given(shapes, st.integers(0, 2**32 - 1))
def test_without_augmentation_a_window_is_a_regular_one(shape, seed):
    plain = PlanSettings(stretch=0, jitter=0, rewind=0, rewind_frames=1, pause=0, hover=0, hold=0)
    labels = [labels_of(150)]
    windows = draw_windows(np.random.default_rng(seed), labels, [0], shape, plain)
    steps = np.diff(windows.frames[0, 1:])
    assert (steps == shape.gap).all()
    assert windows.supervised[0, 1:].all()


def test_rewind_shows_past_frames_again_in_reverse():
    always = PlanSettings(stretch=0, jitter=0.5, rewind=1.0, rewind_frames=4, pause=0, hover=0, hold=0)
    turned = 0
    for seed in range(30):
        windows = draw_windows(np.random.default_rng(seed), [labels_of(300)], [0], WindowShape(8, 10), always)
        walk = windows.frames[0, 1:]
        back = int((np.diff(walk) < 0).sum())
        assert 1 <= back <= 4
        turn = len(walk) - 1 - back
        assert np.array_equal(walk[turn:], walk[turn - back : turn + 1][::-1])
        turned += back
    assert turned > 30


def test_pause_shows_a_frame_again():
    always = PlanSettings(stretch=0, jitter=0, rewind=0, rewind_frames=1, pause=1.0, hover=0, hold=0)
    windows = draw_windows(np.random.default_rng(0), [labels_of(300)], [0], WindowShape(8, 10), always)
    assert (np.diff(windows.frames[0, 1:]) == 0).any()


def test_half_of_the_pauses_last_to_the_end_of_the_window():
    always = PlanSettings(stretch=0, jitter=0, rewind=0, rewind_frames=1, pause=1.0, hover=0, hold=0)
    rng = np.random.default_rng(0)
    walks = [draw_windows(rng, [labels_of(300)], [0], WindowShape(8, 10), always).frames[0, 1:] for _ in range(60)]
    stopped = [walk[-1] == walk[-2] for walk in walks]
    assert 25 < sum(stopped) < 55
    assert any(np.ptp(walk) == 0 for walk in walks)


def test_hovering_windows_go_to_and_fro_at_their_end():
    always = PlanSettings(stretch=0, jitter=0, rewind=0, rewind_frames=1, pause=0, hover=1.0, hold=0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        walk = draw_windows(rng, [labels_of(300)], [0], WindowShape(8, 10), always).frames[0, 1:]
        steps = np.diff(walk)
        assert steps[-1] == -steps[-2]
        assert 1 <= abs(steps[-1]) <= 10


def test_hold_reaches_the_last_frame_and_stays():
    always = PlanSettings(stretch=0, jitter=0, rewind=0, rewind_frames=1, pause=0, hover=0, hold=1.0)
    rng = np.random.default_rng(0)
    walks = [draw_windows(rng, [labels_of(300)], [0], WindowShape(8, 10), always).frames[0, 1:] for _ in range(20)]
    assert all(walk[-1] == 299 for walk in walks)
    assert {int((walk == 299).sum()) for walk in walks} >= {1, 2, 3, 4}


def test_every_frame_is_shown_often_the_ends_too():
    plain = PlanSettings(stretch=0, jitter=0, rewind=0, rewind_frames=1, pause=0, hover=0, hold=0)
    rng = np.random.default_rng(1)
    count = np.zeros(60)
    for _ in range(2000):
        windows = draw_windows(rng, [labels_of(60)], [0], WindowShape(4, 5), plain)
        np.add.at(count, windows.frames[0, 1:], 1)
    assert count.min() > 0.3 * count.mean()
    assert count.max() < 2 * count.mean()


@given(st.integers(0, 200), shapes)
def test_a_regular_window_ends_at_its_frame_and_holds_only_the_past(t, shape):
    frames, slot = regular_window([t], shape)
    used = frames[0, : slot[0] + 1]
    assert used[0] == 0
    assert used[-1] == t
    assert (used <= t).all()
    assert (np.diff(used[1:]) == shape.gap).all()
    assert len(used) == min(t // shape.gap, shape.history) + 2


def test_draws_differ_between_the_windows_of_a_batch():
    varied = PlanSettings()
    windows = draw_windows(np.random.default_rng(0), [labels_of(300)], [0] * 6, WindowShape(8, 10), varied)
    assert len({tuple(row) for row in windows.frames.tolist()}) == 6


@pytest.mark.parametrize("length", [1, 2, 5])
def test_short_episodes_give_padded_windows(length):
    windows = draw_windows(np.random.default_rng(0), [labels_of(length)], [0], WindowShape(8, 10), PlanSettings())
    assert 1 <= windows.supervised.sum() <= 9
