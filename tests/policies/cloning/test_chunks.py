from __future__ import annotations

import numpy as np
import pytest

from robo_core.errors import ConfigError
from robo_policies.cloning.chunks import ChunkPlayer


def chunk(first: float, length: int = 4) -> np.ndarray:
    return np.arange(first, first + length, dtype=np.float32)[:, None]


def test_a_horizon_plays_that_much_of_each_chunk():
    player, played = ChunkPlayer(3), []
    for step in range(7):
        assert player.wants_chunk == (step % 3 == 0)
        if player.wants_chunk:
            player.add(chunk(10 * step))
        played.append(float(player.next()[0]))
    assert played == [0, 1, 2, 30, 31, 32, 60]


def test_a_horizon_longer_than_the_chunk_asks_when_the_chunk_ends():
    player = ChunkPlayer(9)
    player.add(chunk(0, 2))
    player.next(), player.next()
    assert player.wants_chunk


def test_ensembling_weighs_the_oldest_prediction_most():
    player = ChunkPlayer(1, ensemble=0.5)
    played = []
    for step in range(3):
        assert player.wants_chunk
        player.add(chunk(10 * step, 3))
        played.append(float(player.next()[0]))
    w = np.exp(-0.5 * np.arange(3))
    assert played[1] == pytest.approx((w[0] * 1 + w[1] * 10) / w[:2].sum())
    assert played[2] == pytest.approx((w[0] * 2 + w[1] * 11 + w[2] * 20) / w.sum())
    # The first chunk is used up: the two later ones and a new one remain.
    player.add(chunk(30, 3))
    assert float(player.next()[0]) == pytest.approx((w[0] * 12 + w[1] * 21 + w[2] * 30) / w.sum())


def test_a_horizon_below_one_is_refused():
    with pytest.raises(ConfigError, match="horizon=0"):
        ChunkPlayer(0)
