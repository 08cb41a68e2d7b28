"""Hops are drawn evenly over bins of value and time; labels stay with their frames."""

from __future__ import annotations

import numpy as np
import pytest

from robo_rm.reward_models.grm.labels import Truth, hop, time_truth
from robo_rm.reward_models.grm.sampling import HopSampler
from robo_rm.reward_models.grm.settings import HopPlan

EVEN = HopPlan(zero=0.0, negatives=0.0)


def failure(length: int) -> Truth:
    """Rises to .4 in its first half and gives up there."""
    low = np.minimum(np.linspace(0, 0.8, length), 0.4).astype(np.float32)
    high = np.where(low >= 0.4, np.float32(0.7), low).astype(np.float32)
    return Truth(low, high, reached=False)


def bins_of(sampler: HopSampler, hops) -> np.ndarray:
    """The bin of each hop; -1 for a hop of no time."""
    table = [sampler._bins(int(e), np.array([p, q]))[0, 1] if p != q else -1 for e, p, q in zip(*hops, strict=True)]
    return np.array(table, dtype=np.int64)


def test_every_bin_is_drawn_equally_often():
    sampler = HopSampler([time_truth(90), time_truth(200), time_truth(143)], EVEN)
    hops = sampler.draw(np.random.default_rng(0), 6000)
    counts = np.bincount(bins_of(sampler, hops), minlength=100)[sampler.filled]
    expected = 6000 / len(sampler.filled)
    assert len(sampler.filled) > 60
    assert counts.min() > 0.6 * expected
    assert counts.max() < 1.4 * expected
    assert counts.sum() == 6000  # no hop of no time, none outside the bins


def test_frames_drawn_by_time_alone_would_not_be_even():
    """The test above can fail: random pairs fill the bins very unevenly."""
    sampler = HopSampler([time_truth(90)], EVEN)
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 90, (2, 4000))
    hops = sampler.draw(rng, 1)._replace(episode=np.zeros(4000, np.int64), here=pairs[0], there=pairs[1])
    numbers = bins_of(sampler, hops)
    counts = np.bincount(numbers[numbers >= 0], minlength=100)[sampler.filled]
    assert counts.min() < 0.2 * counts.mean()
    assert counts.max() > 2 * counts.mean()


def test_zero_hops_and_negatives_have_their_shares():
    truths = [time_truth(80), failure(120)]
    sampler = HopSampler(truths, HopPlan(zero=0.05, negatives=0.15))
    hops = sampler.draw(np.random.default_rng(1), 4000)
    still = hops.here == hops.there
    assert np.mean(still) == pytest.approx(0.05, abs=0.02)
    ends = (hops.episode == 1) & ~still & np.isin(hops.there, truths[1].plateau)
    assert 0.14 < np.mean(ends) < 0.6  # those drawn as such, and what the bins give anyway


def test_drawing_is_by_the_seed_alone():
    sampler = HopSampler([time_truth(60), failure(70)], HopPlan())
    first, second = (sampler.draw(np.random.default_rng(5), 64) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_unlabelled_frames_and_episodes_are_never_drawn():
    low = np.linspace(0, 1, 40, dtype=np.float32)
    low[:10] = np.nan
    empty = np.full(30, np.nan, dtype=np.float32)
    sampler = HopSampler([Truth(low, low, True), Truth(empty, empty, False)], HopPlan())
    hops = sampler.draw(np.random.default_rng(0), 500)
    assert set(hops.episode.tolist()) == {0}
    assert hops.here.min() >= 10
    assert hops.there.min() >= 10


def test_an_episode_of_two_frames_is_enough():
    sampler = HopSampler([time_truth(2)], HopPlan())
    hops = sampler.draw(np.random.default_rng(0), 50)
    assert set(hop(hops.here, hops.there).tolist()) <= {-1.0, 0.0, 1.0}
