from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_demos import FEATURES, FRONT, add_episode, make_arrays

from robo_core.errors import StoreError
from robo_datasets import DemoStore
from robo_datasets.doctor.examine import examine
from robo_datasets.store.frame_cache import CachedCamera, FrameCache
from robo_datasets.store.index import DamagedEpisodeWarning

DEPTH = "observation.images.depth"
WRIST = "observation.images.wrist"


@pytest.fixture
def store(tmp_path) -> Path:
    """A store with every kind of file: JPEG, lossless, raw and cached frames, edits, derived arrays, an index."""
    raw = {"shape": (4, 5, 3), "dtype": "uint8", "codec": "raw"}
    features = {**FEATURES, DEPTH: {"shape": (6, 8, 1), "dtype": "uint16"}, WRIST: raw}
    store = DemoStore.create(tmp_path / "demos.zarr", features, fps=10, stages=["reach", "place"])
    rng = np.random.default_rng(0)
    for seed in range(2):
        with store.writer(task="pick", success=True, attributes={"quality": "slow", "n": seed}) as writer:
            depth = rng.integers(0, 65536, (6, 6, 8, 1), dtype=np.uint16)
            wrist = rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
            writer.extend({**make_arrays(6, seed), DEPTH: depth, WRIST: wrist}, stage=[0, 0, 0, 1, 1, 1])
    first, second = store.uuids
    store.set_stages(first, [0, 1, 1, 1, 1, -1])
    store.set_success(first, False)
    derived = store.derive("progress", {"model": "m", "steps": 10})
    for uuid in (first, second):
        derived.write(uuid, {"progress": rng.random(6).astype(np.float32), "stages": rng.random((6, 2))})
    for camera in (CachedCamera(store.schema[DEPTH], None), CachedCamera(store.schema[FRONT], (12, 16))):
        FrameCache(store.path, camera, store.lengths).fill(store.episode(first))
    return DemoStore.open(store.path).path


def everything(root: Path) -> dict[str, Any]:
    """All that a reader can get out of a store."""
    store = DemoStore.open(root)
    said: dict[str, Any] = {"fps": store.fps, "stages": store.stages, "hash": store.content_hash()}
    derived = store.derived("progress")
    said["provenance"] = derived.provenance
    for episode in store:
        said[episode.uuid] = {
            "said": (episode.length, episode.task, episode.success, episode.attributes, episode.created),
            "stage": episode.stage.tobytes(),
            "time": episode.timestamp.tobytes(),
            "derived": {key: value.tobytes() for key, value in derived.read(episode.uuid).items()},
            **{key: episode[key][:].tobytes() for key in episode},
            "small": episode.frames(FRONT, range(6), size=(12, 16)).tobytes(),
        }
    return said


def damage(raw: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Cut a file short, or flip one bit of it."""
    if rng.random() < 0.4:
        size = int(rng.integers(len(raw)))
        return f"cut to {size} bytes", raw[:size]
    place, bit = int(rng.integers(len(raw))), int(rng.integers(8))
    changed = bytearray(raw)
    changed[place] ^= 1 << bit
    return f"bit {bit} of byte {place} flipped", bytes(changed)


def check_damage(root: Path, path: Path, raw: bytes, expected: dict[str, Any]) -> str:
    """How one damaged file was noticed: by reading or by doctor; fails where it was not, or was returned as data."""
    path.write_bytes(raw)
    said, complaint = read_or_complain(root)
    if said is not None:
        for uuid in said.keys() & expected.keys() - {"hash"}:
            assert said[uuid] == expected[uuid], f"{uuid} read as something else"
        assert said.keys() == expected.keys() or str(path) in complaint
    else:
        assert str(path) in complaint
    path.write_bytes(raw)  # opening may have rebuilt the index
    found = [finding for finding in examine(root).findings if str(path) in finding.message]
    return "reading" if complaint else "doctor" if found else ""


def read_or_complain(root: Path) -> tuple[dict[str, Any] | None, str]:
    """What a store says, and what it complains of: warnings, or the error that kept it from saying anything."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DamagedEpisodeWarning)
        try:
            said = everything(root)
        except StoreError as error:
            return None, str(error)
    return said, "".join(str(warning.message) for warning in caught)


def check_many(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    expected = everything(root)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    assert len(paths) > 40
    seen: dict[str, int] = {}
    for number in range(count):
        path = paths[number % len(paths)]
        raw = path.read_bytes()
        what, damaged = damage(raw, rng)
        noticed = check_damage(root, path, damaged, expected)
        assert noticed, f"{path}: {what} went unnoticed"
        seen[noticed] = seen.get(noticed, 0) + 1
        path.write_bytes(raw)
    assert everything(root) == expected
    assert not examine(root).findings
    assert seen.keys() == {"reading", "doctor"}


def test_every_cut_and_flipped_bit_is_noticed_and_named(store):
    check_many(store, 110)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_cuts_and_flipped_bits_are_noticed_and_named(store):
    check_many(store, 1000)


def test_every_missing_file_is_noticed(store, tmp_path):
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        # The index is derived, and without its newest edit an episode is as it was before that edit.
        if path.name in ("index.json", "00000002.json"):
            continue
        path.rename(tmp_path / "kept")
        findings = examine(store).findings
        (tmp_path / "kept").rename(path)
        assert findings, f"{path} was not missed"


def test_frames_of_an_open_episode_are_checked_on_every_read(make_store):
    episode = make_store(episodes=1)[0]
    key = "observation.images.front"
    assert len(episode[key][:]) == 12
    shard = next((episode.path / key).glob("c.*"))
    with open(shard, "r+b") as file:
        file.seek(20)
        byte = file.read(1)
        file.seek(20)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(StoreError, match="frame 0"):
        episode[key][0]
    assert len(episode[key][1:]) == 11


def test_a_store_that_cannot_be_written_to_can_be_read(make_store):
    store = make_store(episodes=1)
    (store.path / "index.json").unlink(missing_ok=True)
    os.chmod(store.path, 0o555)
    try:
        assert len(DemoStore.open(store.path)) == 1
    finally:
        os.chmod(store.path, 0o755)


def test_derived_arrays_are_replaced_whole(make_store):
    store = make_store(episodes=1)
    uuid = store.uuids[0]
    derived = store.derive("weights", {"mode": "paper"})
    derived.write(uuid, {"weight": np.zeros(12, np.float32)})
    derived.write(uuid, {"weight": np.ones(12, np.float32)})
    assert derived.read(uuid)["weight"].tolist() == [1] * 12
    assert store.derived("weights").provenance == {"mode": "paper"}
    store.derive("weights", {"mode": "calibrated"}).write(uuid, {"weight": np.full(12, 2, np.float32)})
    assert store.derived("weights").provenance == {"mode": "calibrated"}
    assert list((store.path / ".staging").iterdir()) == []


def test_wrong_derived_arrays_are_refused(make_store):
    store = make_store(episodes=1)
    uuid = store.uuids[0]
    derived = store.derive("weights", {})
    for arrays, message in (
        ({"weight": np.zeros(3, np.float32)}, "12 rows"),
        ({"../x": np.zeros(12, np.float32)}, "derived key"),
        ({"weight": np.zeros(12, object)}, "type object"),
        ({}, "no arrays"),
    ):
        with pytest.raises(StoreError, match=message):
            derived.write(uuid, arrays)
    with pytest.raises(StoreError, match="no episode"):
        derived.write("nobody", {"weight": np.zeros(12)})
    with pytest.raises(StoreError, match="has no 'weights'"):
        derived.read(uuid)
    with pytest.raises(StoreError, match="robo-rm score"):
        store.derived("progress")
    with pytest.raises(StoreError, match="lower-case"):
        store.derive("../x", {})
    with pytest.raises(StoreError, match="plain JSON"):
        store.derive("x", {"model": object()})
    assert not derived.path.exists()


def test_editors_at_once_all_count(make_store):
    from concurrent.futures import ThreadPoolExecutor

    store = make_store(episodes=1)
    uuid = store.uuids[0]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.set_success(uuid, number % 2 == 0), range(20)))
    names = sorted(os.listdir(store.path / "annotations" / uuid))
    assert names == [f"{number:08d}.json" for number in range(1, 21)]


def test_the_index_alone_opens_a_large_store(tmp_path):
    """Opening reads index.json and lists one folder, whatever the number of episodes."""
    store = DemoStore.create(tmp_path / "demos.zarr", FEATURES, fps=10, stages=["reach", "place"])
    for seed in range(3):
        add_episode(store, length=2, seed=seed)
    DemoStore.open(store.path)
    for uuid in store.uuids:  # an index that is up to date spares the episodes' own records
        (store.path / "episodes" / uuid / "COMMIT.json").unlink()
    assert DemoStore.open(store.path).uuids == store.uuids
