from __future__ import annotations

import itertools
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_demos import FRONT

from robo_core.errors import StoreError
from robo_core.lru_cache import LRUCache
from robo_core.threads import set_decode_threads
from robo_datasets import DemoStore
from robo_datasets.store import demo_store as store_module
from robo_datasets.store.windows import BlockShuffle, WindowPlan, read_ahead, read_window, read_windows


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A store whose every value tells its own episode and frame: 100 * episode + frame."""
    features = {"action": {"shape": (1,), "dtype": "float32"}, FRONT: {"shape": (8, 8, 3), "dtype": "uint8"}}
    store = DemoStore.create(
        tmp_path_factory.mktemp("w") / "a.zarr", features, fps=10, stages=["a", "b"], codec="lossless"
    )
    for number, length in enumerate((5, 1, 8)):
        with store.writer() as writer:
            for frame in range(length):
                image = np.full((8, 8, 3), 100 * number + frame, np.uint8)
                writer.add({"action": np.float32([100 * number + frame]), FRONT: image}, stage=frame % 2)
    return store


@given(
    times=st.lists(st.integers(-12, 12), min_size=1, max_size=5),
    every=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_every_key_of_a_window_holds_the_frames_it_should(numbered, times, every):
    offsets = [time / 10 for time in times]
    plan = WindowPlan(numbered, {"action": offsets, FRONT: offsets, "stage": offsets}, every=every)
    assert len(plan) == sum(-(-length // every) for length in (5, 1, 8))
    for number in range(len(plan)):
        window = plan[number]
        episode, length = plan.uuids.index(window.uuid), numbered.lengths[window.uuid]
        arrays = read_window(numbered, window)
        wanted = window.anchor + np.array(times)
        inside = wanted.clip(0, length - 1)
        np.testing.assert_array_equal(arrays["action"][:, 0], 100 * episode + inside)
        np.testing.assert_array_equal(arrays[FRONT][:, 0, 0, 0], 100 * episode + inside)
        np.testing.assert_array_equal(arrays["stage"], inside % 2)
        for key in ("action", FRONT, "stage"):
            np.testing.assert_array_equal(arrays[key + "_is_pad"], inside != wanted)


@pytest.mark.parametrize("block", [1, 2, 10])
def test_a_shuffle_visits_every_window_once_and_follows_seed_and_epoch(numbered, block):
    plan = WindowPlan(numbered, {"action": [0.0]})
    order = BlockShuffle(plan, seed=3, block=block)
    first = list(order)
    assert sorted(first) == list(range(14))
    assert list(order) == first
    order.epoch = 1
    assert list(order) != first
    uuids = [plan[number].uuid for number in first]
    if block == 1:  # an episode is left when it is done, not before
        assert sum(a != b for a, b in itertools.pairwise(uuids)) == len(plan.uuids) - 1


def test_impossible_plans_say_why(numbered):
    for settings_, message in (
        ({"deltas": {"nothing": [0.0]}}, "no feature 'nothing'"),
        ({"deltas": {"action": [0.05]}}, "not whole frames"),
        ({"deltas": {"action": []}}, "not whole frames"),
        ({"deltas": {}}, "give the keys"),
        ({"deltas": {"action": [0.0]}, "uuids": ["nobody"]}, "no episode nobody"),
        ({"deltas": {"action": [0.0]}, "uuids": []}, "no episodes"),
        ({"deltas": {"action": [0.0]}, "every": 0}, "every=0"),
    ):
        with pytest.raises(StoreError, match=message):
            WindowPlan(numbered, **settings_)
    with pytest.raises(IndexError):
        WindowPlan(numbered, {"action": [0.0]})[14]


def test_a_batch_of_windows_is_that_of_each(numbered):
    plan = WindowPlan(numbered, {FRONT: [-0.1, 0.0], "action": [0.0]})
    set_decode_threads(3)
    try:
        windows = [plan[number] for number in (13, 0, 5, 5, 7)]
        for arrays, window in zip(read_windows(numbered, windows, (4, 4)), windows, strict=True):
            expected = read_window(numbered, window, (4, 4))
            assert arrays.keys() == expected.keys()
            for key in arrays:
                np.testing.assert_array_equal(arrays[key], expected[key])
    finally:
        set_decode_threads(None)
    assert read_windows(numbered, []) == []


def test_many_threads_may_read_one_store(numbered, monkeypatch):
    """More readers than shards and arrays fit the caches: they come and go under way."""
    monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 1)
    monkeypatch.setattr(store_module, "MAX_CACHED_ARRAYS", 1)
    store = DemoStore.open(numbered.path)
    plan = WindowPlan(store, {FRONT: [0.0], "action": [0.0]})

    def read(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(len(plan), size=150).tolist():
            window = plan[number]
            arrays = read_window(store, window)
            assert arrays["action"][0, 0] == 100 * plan.uuids.index(window.uuid) + window.anchor
            assert arrays[FRONT][0, 0, 0, 0] == arrays["action"][0, 0]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(read, range(6)))


def test_the_cache_is_bounded_in_number_and_bytes():
    cache: LRUCache[str] = LRUCache(3, 10)
    made = [cache.get_or_build(number, lambda: "x", lambda value: 4) for number in range(5)]
    assert made == ["x"] * 5
    assert (len(cache), cache.get(4), cache.get(2)) == (2, "x", None)
    cache.put("large", "y", 1000)
    assert (len(cache), cache.get("large")) == (1, "y")
    assert cache.put("large", "z", 1) == "y"
    assert len(pickle.loads(pickle.dumps(cache))) == 0


def test_reading_ahead_gives_the_same_batches_in_order_while_the_caller_works():
    made = []

    def batches():
        for number in range(6):
            made.append(number)
            yield number

    ahead = read_ahead(batches(), ahead=2)
    assert next(ahead) == 0
    wait_until(lambda: len(made) == 4)  # one taken, two waiting, one in hand
    assert list(ahead) == [1, 2, 3, 4, 5]


def test_reading_ahead_raises_where_the_batch_would_have_come():
    def batches():
        yield 1
        raise StoreError("damaged")

    ahead = read_ahead(batches())
    assert next(ahead) == 1
    with pytest.raises(StoreError, match="damaged"):
        next(ahead)
    with pytest.raises(StoreError, match="at least one"):
        next(read_ahead([], ahead=0))


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    ahead = read_ahead(itertools.count())
    assert next(ahead) == 0
    assert threading.active_count() == before + 1
    ahead.close()
    assert threading.active_count() == before


def wait_until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)
