"""Wrong instructions: per window, never the right words, and no progress to be had from them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rm.encoders.conv import word_vectors
from robo_rm.labels.mismatch import made_up, mismatch_instructions
from robo_rm.labels.plan import WindowShape, draw_windows
from robo_rm.labels.progress import label_frames
from robo_rm.settings import PlanSettings

TASKS = ["put the cube away", "open the drawer", "put the cube away"]


def some_windows(seed: int = 0):
    labels = [label_frames([(0, 0, 10, True), (1, 10, 20, False)], [0.5, 0.5], 25) for _ in TASKS]
    rng = np.random.default_rng(seed)
    return draw_windows(rng, labels, [0, 1, 2, 0, 1, 2], WindowShape(4, 2), PlanSettings())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_only_windows_with_other_words_lose_their_labels(seed, share):
    windows = some_windows(seed)
    right = [TASKS[episode] for episode in windows.episode.tolist()]
    changed, told = mismatch_instructions(np.random.default_rng(seed), windows, right, TASKS, share)
    assert np.array_equal(changed.frames, windows.frames)
    assert np.array_equal(changed.supervised, windows.supervised), "padding stays padding"
    for row, (own, text) in enumerate(zip(right, told, strict=True)):
        if text == own:
            for name in ("stage", "within", "complete"):
                assert np.array_equal(getattr(changed, name)[row], getattr(windows, name)[row])
            assert np.array_equal(changed.progress[row], windows.progress[row], equal_nan=True)
        else:
            seen = windows.supervised[row]
            assert (changed.stage[row][seen] == 0).all()
            assert (changed.progress[row] == 0).all()
            assert (changed.within[row] == 0).all()
            assert changed.complete[row][seen].all()


def test_windows_are_drawn_one_by_one_and_half_get_another_task():
    windows = some_windows()
    right = [TASKS[episode] for episode in windows.episode.tolist()]
    rng = np.random.default_rng(0)
    draws = [mismatch_instructions(rng, windows, right, TASKS, 0.5)[1] for _ in range(200)]
    wrong = np.array([[text != own for text, own in zip(told, right, strict=True)] for told in draws])
    assert 0.4 < wrong.mean() < 0.6
    assert {1, 2, 3} < set(wrong.sum(axis=1).tolist()), "windows of a batch differ"
    pairs = [(text, own) for told in draws for text, own in zip(told, right, strict=True)]
    others = np.mean([text in TASKS for text, own in pairs if text != own])
    assert 0.35 < others < 0.65


def test_an_unnamed_task_is_never_mismatched():
    windows = some_windows()
    changed, told = mismatch_instructions(np.random.default_rng(0), windows, [""] * 6, TASKS, 1.0)
    assert told == [""] * 6
    assert changed is windows


def test_words_never_heard_have_vectors_of_their_own():
    rng = np.random.default_rng(0)
    texts = [made_up(rng) for _ in range(20)]
    vectors = word_vectors([*texts, "", "put the cube away"]).numpy()
    assert (vectors[20] == 0).all(), "no words, no vector"
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    assert (unit[:20] @ unit[21]).max() < 0.6
    assert np.array_equal(word_vectors(["Put the cube away!"]).numpy()[0], vectors[21])
