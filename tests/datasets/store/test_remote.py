from __future__ import annotations

import functools
import http.server
import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from small_demos import FRONT, checksum

from robo_core.errors import CorruptionError, StoreError
from robo_datasets import DemoStore


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and parts of them, as object stores do."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        start, end = int(asked[1]), int(asked[2] or len(data) - 1)
        part = data[start : end + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path) -> Iterator[str]:
    handler = functools.partial(RangeHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["memory", "http"])
def both(request, make_store) -> Iterator[tuple[DemoStore, str]]:
    """A local store with edits and derived arrays, and the URL of the same store elsewhere."""
    store = make_store(episodes=3)
    store.set_success(store.uuids[0], False)
    store.derive("progress", {"model": "m"}).write(store.uuids[1], {"progress": np.arange(12, dtype=np.float32)})
    if request.param == "http":
        yield store, request.getfixturevalue("web") + f"/{store.path.name}"
        return
    memory = fsspec.filesystem("memory")
    memory.put(str(store.path), "/demos.zarr", recursive=True)
    yield store, "memory://demos.zarr"
    memory.rm("/demos.zarr", recursive=True)


def test_a_store_on_a_url_says_what_the_local_one_says(both):
    local, url = both
    remote = DemoStore.open(url)
    assert remote.uuids == local.uuids
    assert remote.content_hash() == local.content_hash()
    assert [episode.success for episode in remote] == [False, True, True]
    for ours, theirs in zip(local, remote, strict=True):
        assert theirs.attributes == ours.attributes
        np.testing.assert_array_equal(theirs.stage, ours.stage)
        for key in ours:
            np.testing.assert_array_equal(theirs[key][[3, 0, 11]], ours[key][[3, 0, 11]])
        np.testing.assert_array_equal(theirs.frames(FRONT, [5], (12, 16)), ours.frames(FRONT, [5], (12, 16)))
    assert remote.derived("progress").read(local.uuids[1])["progress"].tolist() == list(range(12))


def test_a_store_on_a_url_is_read_only(both):
    local, url = both
    remote = DemoStore.open(url)
    uuid = local.uuids[0]
    for act in (
        lambda: remote.writer(),
        lambda: remote.set_success(uuid, True),
        lambda: remote.set_stages(uuid, [0] * 12),
        lambda: remote.remove([uuid]),
        lambda: remote.derive("weights", {}).write(uuid, {"weight": np.zeros(12)}),
    ):
        with pytest.raises(StoreError, match="only be read"):
            act()


def test_a_store_without_index_opens_from_a_url(both):
    local, url = both
    (local.path / "index.json").unlink(missing_ok=True)
    files = fsspec.filesystem("memory")
    if url.startswith("memory") and files.exists("/demos.zarr/index.json"):
        files.rm("/demos.zarr/index.json")
    assert DemoStore.open(url).uuids == local.uuids


def test_damage_on_a_url_is_noticed(make_store, web):
    store = make_store(episodes=1)
    remote = DemoStore.open(f"{web}/{store.path.name}")
    episode = remote[0]
    shard = next((store[0].path / FRONT).glob("c.*"))
    raw = bytearray(shard.read_bytes())
    raw[30] ^= 4
    shard.write_bytes(bytes(raw))
    with pytest.raises(CorruptionError, match="frame 0 does not match"):
        episode[FRONT][0]
    os.truncate(next((store[0].path / "action").glob("c.*")), 5)
    with pytest.raises(CorruptionError, match="truncated"):
        episode["action"][0]
    shutil.rmtree(store[0].path / "observation.state")
    with pytest.raises(CorruptionError, match="not there"):
        episode["observation.state"][0]


def test_what_cannot_be_reached_says_so(tmp_path, web):
    with pytest.raises(StoreError, match="there is no demo store"):
        DemoStore.open(f"{web}/none.zarr")
    with pytest.raises(StoreError, match="cannot be"):
        DemoStore.open("nonsense://x/y.zarr")
    with pytest.raises(StoreError, match="there is no demo store"):
        DemoStore.open("http://127.0.0.1:1/none.zarr")


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_read_from_a_url(make_store, web, method):
    store = make_store(episodes=2)
    remote = DemoStore.open(f"{web}/{store.path.name}")
    expected = [checksum(episode) for episode in remote]  # connected before the workers start
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(checksum, list(remote)).get(timeout=60) == expected
