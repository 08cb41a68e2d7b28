from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_demos import FRONT, smooth_frames

from robo_datasets import DemoStore
from robo_datasets.doctor.across_episodes import feature_scales, state_action_lag
from robo_datasets.doctor.examine import examine
from robo_datasets.doctor.findings import CHECKS
from robo_datasets.store.writer import lock_folder

LENGTH, FPS = 70, 10
FEATURES = {
    FRONT: {"shape": (24, 32, 3), "dtype": "uint8"},
    "observation.state": {"shape": (4,), "dtype": "float32"},
    "action": {"shape": (4,), "dtype": "float32"},
}


def healthy(seed: int = 0, lag: int = 1) -> dict:
    """An episode of a robot that moves all its joints smoothly and follows its actions by ``lag`` frames."""
    rng = np.random.default_rng(seed)
    t = np.arange(LENGTH + abs(lag))[:, None] / FPS
    path = np.sin(t * rng.uniform(0.7, 1.5, 4) + rng.uniform(0, 6, 4)) + 0.1 * np.sin(t * rng.uniform(3, 5, 4))
    path = path.astype(np.float32)
    action, state = (path[lag:], path[:LENGTH]) if lag >= 0 else (path[:LENGTH], path[-lag:])
    return {
        "frames": {FRONT: smooth_frames(LENGTH, seed=seed), "observation.state": state, "action": action},
        "timestamps": 3.0 + np.arange(LENGTH) / FPS,
        "stage": np.arange(LENGTH) * 2 // LENGTH,
    }


def store_of(path: Path, episodes: list[dict]) -> DemoStore:
    store = DemoStore.create(path, FEATURES, fps=FPS, stages=["reach", "place"])
    for episode in episodes:
        with store.writer(task="pick", success=True) as writer:
            writer.extend(episode["frames"], episode["timestamps"], episode["stage"])
    return store


@pytest.fixture
def clean(tmp_path) -> DemoStore:
    return store_of(tmp_path / "clean.zarr", [healthy(seed) for seed in range(4)])


def findings_of(root: Path) -> dict[str, list]:
    found: dict[str, list] = {}
    for finding in examine(root).findings:
        found.setdefault(finding.check, []).append(finding)
    return found


def test_a_clean_store_has_no_findings(clean, run_command, tmp_path):
    assert findings_of(clean.path) == {}
    code, out, _ = run_command("doctor", f"store={clean.path}", f"out={tmp_path / 'out'}")
    assert code == 0
    assert "4 whole episodes, 280 frames: 0 errors, 0 warnings" in out
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert {name: metrics[f"findings_{name}"] for name in CHECKS} == dict.fromkeys(CHECKS, 0)
    assert metrics["state_action_lag_s"] == pytest.approx(0.1)


def backwards(episode):
    episode["timestamps"][40] = 2.0


def nanoseconds(episode):
    episode["timestamps"] = episode["timestamps"] * 1e9


def hole(episode):
    episode["timestamps"][40:] += 1.0


def other_rate(episode):
    episode["timestamps"] = episode["timestamps"] * 2


def not_a_number(episode):
    episode["frames"]["observation.state"][7, 2] = np.nan


def infinite(episode):
    episode["frames"]["action"][7, 2] = np.inf


def frozen(episode):
    episode["frames"][FRONT][20:40] = episode["frames"][FRONT][20]


def idle(episode):
    for key in ("observation.state", "action"):
        rows = episode["frames"][key]
        rows[:] = np.concatenate([rows[:20], np.repeat(rows[20:21], 25, axis=0), rows[20:45]])


def jump(episode):
    episode["frames"]["observation.state"][30, 1] += 3.0


def unlabelled_inside(episode):
    episode["stage"][30:33] = -1


def degrees(episode):
    for key in ("observation.state", "action"):
        episode["frames"][key] = np.rad2deg(episode["frames"][key])


CASES = {
    "backwards": (backwards, "timestamps", "error", "first at frame 40"),
    "nanoseconds": (nanoseconds, "timestamps", "error", "nanoseconds, not seconds"),
    "hole": (hole, "timestamps", "warning", "after frame 39"),
    "other rate": (other_rate, "timestamps", "warning", "the store says 10 frames/s"),
    "NaN": (not_a_number, "nan", "error", "first in frame 7, dimension 2"),
    "infinity": (infinite, "nan", "error", "action is NaN or infinite"),
    "frozen camera": (frozen, "frozen_camera", "error", "20 to 39"),
    "idle": (idle, "idle", "warning", "frames 20 to"),
    "jump": (jump, "jump", "warning", "at frame 30"),
    "stage gap": (unlabelled_inside, "stage_gap", "warning", "30 to 33"),
    "degrees": (degrees, "mixed_units", "warning", "degrees among radians"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_found_in_its_episode_and_nothing_else(tmp_path, run_command, case):
    damage, check, severity, message = CASES[case]
    episodes = [healthy(seed) for seed in range(4)]
    damage(episodes[2])
    store = store_of(tmp_path / "a.zarr", episodes)
    found = findings_of(store.path)
    ours = [finding for finding in found.pop(check) if message in finding.message]
    assert {(finding.severity, finding.where) for finding in ours} == {(severity, store.uuids[2])}
    # An episode in degrees also widens the range by which the others are judged.
    assert set(found) <= ({"idle", "jump"} if check == "mixed_units" else set())
    code, out, _ = run_command("doctor", f"store={store.path}")
    assert code == (1 if severity == "error" else 0)
    assert check in out


def test_a_image_that_stands_still_while_the_robot_does_is_not_frozen(tmp_path):
    episode = healthy()
    idle(episode)
    episode["frames"][FRONT][20:45] = episode["frames"][FRONT][20]
    store = store_of(tmp_path / "a.zarr", [episode, healthy(1), healthy(2)])
    assert set(findings_of(store.path)) == {"idle"}


def test_constant_dimensions_are_those_that_never_change_in_the_store(tmp_path):
    episodes = [healthy(seed) for seed in range(3)]
    for episode in episodes:
        episode["frames"]["action"][:, 3] = 0.5
    episodes[0]["frames"]["action"][:, 1] = 0.5  # an arm at rest in one episode is nothing to report
    found = findings_of(store_of(tmp_path / "a.zarr", episodes).path)
    assert [finding.message for finding in found["constant"]] == [
        "action: dimensions [3] are constant (0.5) throughout the store"
    ]


def test_degrees_in_some_dimensions_are_reported(tmp_path):
    episodes = [healthy(seed) for seed in range(3)]
    for episode in episodes:
        episode["frames"]["observation.state"][:, 2] *= np.float32(57.3)
    found = findings_of(store_of(tmp_path / "a.zarr", episodes).path)
    assert "dimensions [2]" in found["mixed_units"][0].message


@pytest.mark.parametrize(("lag", "reported"), [(0, False), (3, False), (8, True), (-3, True)])
def test_lag_between_state_and_action(tmp_path, lag, reported):
    store = store_of(tmp_path / "a.zarr", [healthy(seed, lag) for seed in range(4)])
    seconds, correlation = state_action_lag(store, store.uuids, feature_scales(store, store.uuids))
    assert seconds == pytest.approx(lag / FPS)
    assert correlation > 0.9
    assert ("lag" in findings_of(store.path)) == reported


# --- files ---


def chunk(episode, key: str) -> Path:
    return next(path for path in (episode.path / key).iterdir() if path.name.startswith("c."))


def flip(path: Path, position: int = -20) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(bytes(raw))


EPISODE_FAULTS = {
    "flipped shard": lambda episode: flip(chunk(episode, FRONT)),
    "truncated rows": lambda episode: os.truncate(chunk(episode, "action"), 9),
    "missing shard": lambda episode: chunk(episode, FRONT).unlink(),
    "missing array": lambda episode: shutil.rmtree(episode.path / "action"),
    "flipped metadata": lambda episode: flip(episode.path / "action/zarr.json"),
    "flipped attributes": lambda episode: flip(episode.path / "zarr.json"),
    "truncated commit record": lambda episode: os.truncate(episode.path / "COMMIT.json", 100),
    "missing commit record": lambda episode: (episode.path / "COMMIT.json").unlink(),
    "a file too many": lambda episode: (episode.path / "extra").write_text("x"),
}


@pytest.mark.parametrize("fault", EPISODE_FAULTS)
def test_a_damaged_episode_is_named_and_set_aside(clean, run_command, fault):
    bad = clean[1]
    EPISODE_FAULTS[fault](bad)
    code, out, _ = run_command("doctor", f"store={clean.path}")
    assert code == 1
    assert any(str(bad.path) in line for line in out.splitlines())
    assert bad.path.is_dir()  # looking repairs nothing
    code, out, _ = run_command("doctor", f"store={clean.path}", "repair=true")
    assert code == 0
    assert (clean.path / ".quarantine/episodes" / bad.uuid).is_dir()
    assert DemoStore.open(clean.path).uuids == [uuid for uuid in clean.uuids if uuid != bad.uuid]
    assert run_command("doctor", f"store={clean.path}")[0] == 0


def test_a_damaged_description_is_an_error_that_cannot_be_repaired(clean, run_command):
    flip(clean.path / "zarr.json", 200)
    code, out, _ = run_command("doctor", f"store={clean.path}", "repair=true")
    assert code == 1
    assert "zarr.json" in out


@pytest.mark.parametrize("name", ["episodes/zarr.json", "derived/zarr.json", "index.json"])
def test_damaged_store_files_are_repaired(clean, run_command, name):
    DemoStore.open(clean.path)
    flip(clean.path / name)
    assert run_command("doctor", f"store={clean.path}")[0] == 1
    assert run_command("doctor", f"store={clean.path}", "repair=true")[0] == 0
    assert findings_of(clean.path) == {}
    assert DemoStore.open(clean.path).uuids == clean.uuids


def test_derived_arrays_may_be_thrown_away_whole(clean, run_command):
    clean.derive("progress", {}).write(clean.uuids[0], {"progress": np.zeros(LENGTH, np.float32)})
    shutil.rmtree(clean.path / "derived")
    assert findings_of(clean.path) == {}
    clean.derive("progress", {}).write(clean.uuids[0], {"progress": np.zeros(LENGTH, np.float32)})
    assert run_command("doctor", f"store={clean.path}", "repair=true")[0] == 0
    assert findings_of(clean.path) == {}


def test_a_damaged_edit_falls_back_to_the_one_before(clean, run_command):
    uuid = clean.uuids[0]
    clean.set_success(uuid, False)
    clean.set_success(uuid, None)
    flip(clean.path / "annotations" / uuid / "00000002.json")
    assert run_command("doctor", f"store={clean.path}")[0] == 1
    assert run_command("doctor", f"store={clean.path}", "repair=true")[0] == 0
    assert DemoStore.open(clean.path)[0].success is False


def test_damaged_derived_arrays_are_removed(clean, run_command):
    derived = clean.derive("progress", {"model": "a"})
    for uuid in clean.uuids[:2]:
        derived.write(uuid, {"progress": np.zeros(LENGTH, np.float32)})
    flip(next((derived.path / clean.uuids[0] / "progress").glob("c.*")))
    assert run_command("doctor", f"store={clean.path}")[0] == 1
    assert run_command("doctor", f"store={clean.path}", "repair=true")[0] == 0
    assert derived.uuids == [clean.uuids[1]]


def test_what_a_killed_writer_left_is_salvaged_or_removed(clean, run_command):
    whole, staging = clean[0], clean.path / ".staging"
    staging.mkdir(exist_ok=True)
    os.rename(whole.path, staging / whole.uuid)  # killed between COMMIT.json and the rename
    half = staging / "00000000-0000-4000-8000-000000000000"
    half.mkdir()
    (half / "c.0").write_bytes(b"half")
    assert len(findings_of(clean.path)["staging"]) == 2
    assert run_command("doctor", f"store={clean.path}")[0] == 0  # nothing committed is lost: a warning
    assert run_command("doctor", f"store={clean.path}", "repair=true")[0] == 0
    assert DemoStore.open(clean.path).uuids == clean.uuids
    assert list(staging.iterdir()) == []


def test_a_writer_at_work_is_left_alone(clean, run_command):
    with clean.writer() as writer:
        episode = healthy()
        writer.extend(episode["frames"], episode["timestamps"], episode["stage"])
        assert "staging" not in findings_of(clean.path)
        assert run_command("doctor", f"store={clean.path}", "repair=true")[0] == 0
    assert len(DemoStore.open(clean.path)) == 5
    assert lock_folder(clean.path) is not None


def test_doctor_without_a_store_says_so(tmp_path, run_command):
    code, _, err = run_command("doctor", f"store={tmp_path / 'none.zarr'}")
    assert code == 2
    assert "no demo store" in err


def test_real_recordings_are_healthy_enough(shared_data, tmp_path, run_command):
    source = shared_data / "g1_pick_bottle"
    store = tmp_path / "g1.zarr"
    # Low-dimensional data alone: decoding all videos belongs to the slow suite.
    assert run_command("import", "lerobot", f"source={source}", f"store={store}", "cameras=[]", "workers=0")[0] == 0
    code, out, _ = run_command("doctor", f"store={store}")
    assert code == 0
    assert "0 errors" in out
