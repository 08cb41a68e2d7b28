"""Put a store on a local S3 server and read it from there, also in forked and spawned workers; run by test_s3.py.

usage: python s3_round_trip.py FOLDER      (in an environment with robo_datasets, s3fs, moto[s3], flask and flask-cors)
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np

from robo_core.errors import StoreError
from robo_datasets import DemoStore

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "helpers"))
from small_demos import FEATURES, FRONT, add_episode, checksum

WAIT_S = 30


def start_server() -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(10 * WAIT_S):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return server, port
        except OSError:
            time.sleep(0.1)
    server.kill()
    raise RuntimeError(f"the S3 server did not start within {WAIT_S} s")


def round_trip(folder: Path) -> None:
    local = DemoStore.create(folder / "demos.zarr", FEATURES, fps=10, stages=["reach", "place"])
    for seed in range(4):
        add_episode(local, seed=seed)
    local.set_success(local.uuids[0], False)
    DemoStore.open(local.path)
    files = fsspec.filesystem("s3")
    files.mkdir("recordings")
    files.put(str(local.path), "recordings/demos.zarr", recursive=True)
    remote = DemoStore.open("s3://recordings/demos.zarr")
    assert remote.content_hash() == local.content_hash()
    assert [episode.success for episode in remote] == [False, True, True, True]
    for ours, theirs in zip(local, remote, strict=True):
        for key in ours:
            np.testing.assert_array_equal(theirs[key][[3, 0]], ours[key][[3, 0]])
    expected = [checksum(episode) for episode in local]
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map_async(checksum, list(remote)).get(timeout=60) == expected
    shard = files.glob(f"recordings/demos.zarr/episodes/{local.uuids[1]}/{FRONT}/c.*")[0]
    files.pipe(shard, files.cat(shard)[:-7])
    complaint = ""
    try:
        DemoStore.open("s3://recordings/demos.zarr")[1][FRONT][0]
    except StoreError as error:
        complaint = str(error)
    assert "truncated or damaged" in complaint


def main() -> None:
    server, port = start_server()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    try:
        round_trip(Path(sys.argv[1]))
    finally:
        server.kill()
        server.wait()
    print("the same bit for bit")


if __name__ == "__main__":
    main()
