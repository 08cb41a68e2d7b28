from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_demos import FEATURES, FRONT, add_episode, smooth_frames

from robo_core.errors import CorruptionError, StoreError
from robo_core.threads import decode_threads, set_decode_threads, share, spans
from robo_datasets import DemoStore
from robo_datasets.doctor.examine import examine
from robo_datasets.store.frame_cache import CachedCamera, FrameCache, cached_sets, check_space

DEPTH = "observation.images.depth"
SIZES = (None, (24, 32), (12, 16), (5, 7), (30, 40), (24, 16))


def cache(store: DemoStore, size: tuple[int, int] | None = None, key: str = FRONT) -> FrameCache:
    return FrameCache(store.path, CachedCamera(store.schema[key], size), store.lengths)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a frame was decoded")

    monkeypatch.setattr("robo_datasets.store.shard.decode_frame", refuse)


@pytest.mark.parametrize("size", SIZES)
def test_cached_frames_are_those_that_would_be_decoded_and_nothing_is_decoded(make_store, monkeypatch, size):
    store = make_store()
    before = {other: store[0].frames(FRONT, [7, 0, 7], other) for other in SIZES}
    plain = store[0][FRONT][:]
    cache(store, None if size == (24, 32) else size).fill(store[0])
    store = DemoStore.open(store.path)
    for other, expected in before.items():
        np.testing.assert_array_equal(store[0].frames(FRONT, [7, 0, 7], other), expected)
    forbid_decoding(monkeypatch)
    np.testing.assert_array_equal(store[0].frames(FRONT, [7, 0, 7], size), before[size])
    if size in (None, (24, 32)):
        np.testing.assert_array_equal(store[0][FRONT][:], plain)
        np.testing.assert_array_equal(store[0].frames(FRONT, [7, 0, 7], (30, 40)), before[30, 40])
    with pytest.raises(AssertionError, match="was decoded"):
        store[1][FRONT][0]  # not cached: decoded as ever


def test_the_command_caches_goes_on_and_removes(make_store, run_command, monkeypatch, tmp_path):
    store = make_store(episodes=3)
    expected = [episode[FRONT][:] for episode in store]
    size = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file())
    cache(store).fill(store[1])
    assert run_command("cache", f"store={store.path}", f"out={tmp_path / 'out'}")[0] == 0
    assert run_command("cache", f"store={store.path}", "cameras=[front]", "size=[12,16]")[0] == 0
    _, said, _ = run_command("cache", f"store={store.path}")
    assert "3 of 3 shards were there already" in said
    assert '"episodes": 2' in (tmp_path / "out/metrics.json").read_text()
    store = DemoStore.open(store.path)
    with monkeypatch.context() as patch:
        forbid_decoding(patch)
        for episode, frames in zip(store, expected, strict=True):
            np.testing.assert_array_equal(episode[FRONT][:], frames)
    assert examine(store.path).findings == []
    _, said, _ = run_command("info", f"store={store.path}")
    assert "frames (2 sets)" in said
    assert "removed 2 sets" in run_command("cache", f"store={store.path}", "remove=true")[1]
    assert sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file()) - size < 4000  # index.json
    np.testing.assert_array_equal(DemoStore.open(store.path)[2][FRONT][:], expected[2])
    np.testing.assert_array_equal(store[0][FRONT][:], expected[0])  # held open meanwhile


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cameras=[nose]"], "no camera 'nose'"),
        (["size=[12]"], "must be height and width"),
        (["size=[0,5]"], "must be height and width"),
    ],
)
def test_wrong_settings_are_one_line(make_store, run_command, words, message):
    store = make_store(episodes=1)
    code, _, said = run_command("cache", f"store={store.path}", *words)
    assert (code, message in said, said.count("\n")) == (2, True, 1)
    assert list(cached_sets(store.path)) == []


def test_a_store_of_raw_frames_has_nothing_to_cache(make_store, run_command):
    store = make_store(episodes=1, codec="raw")
    code, _, said = run_command("cache", f"store={store.path}")
    assert (code, "nothing to decode" in said) == (2, True)


def test_frames_that_do_not_fit_are_refused_beforehand(make_store, monkeypatch):
    store = make_store(episodes=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 100))
    with pytest.raises(StoreError, match="GB free"):
        check_space(store.path, [(cache(store), store[0].length)])


def test_damaged_cached_frames_are_named_never_returned_and_removed_by_doctor(make_store, run_command):
    store = make_store(episodes=1)
    expected = store[0][FRONT][:]
    kept = cache(store)
    kept.fill(store[0])
    shard = next((kept.path / store.uuids[0] / FRONT).glob("c.*"))
    raw = bytearray(shard.read_bytes())
    raw[5] ^= 4
    shard.write_bytes(raw)
    with pytest.raises(CorruptionError, match=f"{shard} is damaged: the checksum of frame 0"):
        DemoStore.open(store.path)[0][FRONT][0]
    assert run_command("doctor", f"store={store.path}", "repair=true")[0] == 0
    np.testing.assert_array_equal(DemoStore.open(store.path)[0][FRONT][:], expected)


def test_frames_of_another_episode_of_the_same_name_are_not_taken(make_store):
    store = make_store(episodes=1)
    uuid = store.uuids[0]
    cache(store).fill(store[0])
    shutil.rmtree(store.path / "episodes" / uuid)
    store = DemoStore.open(store.path)
    add_episode(store, seed=9, uuid=uuid)
    fresh = DemoStore.open(store.path)[0]
    assert np.abs(fresh[FRONT][:].astype(int) - smooth_frames(12, seed=9)).mean() < 3
    assert not cache(store).holds(fresh.entry)


def test_stock_zarr_reads_cached_frames(make_store):
    store = make_store(episodes=1)
    kept = cache(store, (12, 16))
    kept.fill(store[0])
    array = zarr.open_array(kept.path / store.uuids[0] / FRONT, mode="r")
    np.testing.assert_array_equal(array[:], store[0].frames(FRONT, range(12), (12, 16)))


def test_removing_an_episode_removes_its_cached_frames(make_store):
    store = make_store(episodes=2)
    for episode in store:
        cache(store).fill(episode)
    gone = store.uuids[0]
    store.remove([gone])
    assert not (cache(store).path / gone).exists()
    assert examine(store.path).findings == []


def test_depth_can_be_cached(tmp_path):
    depth = np.random.default_rng(0).integers(0, 65536, (5, 6, 8, 1), dtype=np.uint16)
    store = DemoStore.create(tmp_path / "a.zarr", {DEPTH: {"shape": (6, 8, 1), "dtype": "uint16"}}, fps=10)
    with store.writer() as writer:
        writer.extend({DEPTH: depth})
    cache(store, key=DEPTH).fill(store[0])
    np.testing.assert_array_equal(DemoStore.open(store.path)[0][DEPTH][:], depth)


CACHE_FOR_EVER = """
import sys
from pathlib import Path
from robo_datasets import DemoStore
from robo_datasets.store.frame_cache import CachedCamera, FrameCache
store = DemoStore.open(sys.argv[1])
print("started", flush=True)
while True:
    for size in ((12, 16), (9, 9), None):
        cache = FrameCache(store.path, CachedCamera(store.schema[sys.argv[2]], size), store.lengths)
        for episode in store:
            cache.fill(episode)
"""


def test_a_killed_command_leaves_only_whole_episodes(make_store):
    store = make_store(episodes=3)
    expected = {
        size: [episode.frames(FRONT, range(12), size) for episode in store] for size in (None, (12, 16), (9, 9))
    }
    words = [sys.executable, "-c", CACHE_FOR_EVER, str(store.path), FRONT]
    rng = np.random.default_rng(0)
    for _ in range(6):
        worker = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.1)))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        opened = DemoStore.open(store.path)
        for size, frames in expected.items():
            for episode, whole in zip(opened, frames, strict=True):
                np.testing.assert_array_equal(episode.frames(FRONT, range(12), size), whole)
        report = examine(store.path)
        assert {finding.check for finding in report.findings} <= {"staging"}
    cache(store).fill(store[0])  # what was left does not stand in the way


def test_two_at_the_same_episode_do_not_mix(make_store):
    store = make_store(episodes=1)
    held = store.path / ".staging" / f"{cache(store).path.name}-{store.uuids[0]}"
    from robo_datasets.store.writer import claim_staging

    held.parent.mkdir(exist_ok=True)
    lock = claim_staging(held)
    try:
        with pytest.raises(StoreError, match="by another process"):
            cache(store).fill(store[0])
    finally:
        os.close(lock)


# --- decoding on several threads ---


@pytest.fixture
def four_threads():
    set_decode_threads(4)
    yield
    set_decode_threads(None)


def test_threads_give_the_same_frames_in_the_same_order(make_store, four_threads):
    store = make_store(episodes=1)
    order = [11, 3, 3, 0, 8, 1, 2, 5, 4, 10]
    shared = store[0].frames(FRONT, order)
    small = store[0].frames(FRONT, order, (9, 11))
    set_decode_threads(1)
    np.testing.assert_array_equal(store[0].frames(FRONT, order), shared)
    np.testing.assert_array_equal(store[0].frames(FRONT, order, (9, 11)), small)


def test_a_damaged_frame_on_any_thread_is_an_error(make_store, four_threads):
    episode = make_store(episodes=1)[0]
    assert len(spans(12, 2)) == 6
    shard = next((episode.path / FRONT).glob("c.*"))
    raw = bytearray(shard.read_bytes())
    raw[-16 * 12 - 4 - 30] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(CorruptionError, match="frame 11"):
        episode[FRONT][:]


def test_threads_share_work_only_in_the_main_process(four_threads):
    assert share(lambda part: part + 1, [1, 2, 3]) == [2, 3, 4]
    caller = threading.get_ident()
    seen = share(lambda part: (threading.get_ident(), decode_threads(), time.sleep(0.01)), range(12))
    assert len({thread for thread, *_ in seen}) > 1
    assert {threads for thread, threads, _ in seen if thread != caller} == {1}
    with pytest.raises(ZeroDivisionError):
        share(lambda part: 1 // (part - 2), range(6))
    set_decode_threads(None)
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(decode_threads) == 1
    with pytest.raises(ValueError, match="at least one"):
        set_decode_threads(0)
    assert threading.active_count() >= 1


def test_raw_frames_keep_their_settings(tmp_path: Path):
    DemoStore.create(tmp_path / "a.zarr", FEATURES, fps=10, codec="raw")
    assert DemoStore.open(tmp_path / "a.zarr").schema[FRONT].codec == "raw"
    with pytest.raises(StoreError, match="one of jpeg, lossless, raw"):
        DemoStore.create(tmp_path / "b.zarr", FEATURES, fps=10, codec="lz4")
