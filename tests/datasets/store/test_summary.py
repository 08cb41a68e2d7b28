from __future__ import annotations

import numpy as np
from small_demos import FRONT, smooth_frames

from robo_datasets import DemoStore
from robo_datasets.store.summary import folder_bytes, summarise


def test_a_summary_counts_episodes_time_stages_and_outcomes(make_store):
    store = make_store(episodes=3, robot="so101")
    store.set_success(store.uuids[0], False)
    store.set_success(store.uuids[1], None)
    store.set_stages(store.uuids[2], np.full(12, -1))
    rows = summarise(store)
    text = dict(rows)
    assert text["episodes"] == "3"
    assert text["frames"].startswith("36 at 10 frames/s")
    assert text["robot"] == "so101"
    assert text["camera"] == f"{FRONT}: 24x32x3 uint8, JPEG quality 95 4:4:4"
    assert text["task"] == "pick (3 episodes)"
    assert text["success"] == "1 yes, 1 no, 1 unknown"
    assert text["stages"] == "2 of 3 episodes annotated"
    assert text["stage 0"] == "reach: 2 episodes, 0.6 s on average"


def test_an_empty_store_can_be_summarised(make_store):
    rows = dict(summarise(make_store(episodes=0)))
    assert rows["episodes"] == "0"
    assert rows["success"] == "0 yes, 0 no, 0 unknown"
    assert "derived" not in rows  # the folder's own record is no derived set


def test_one_episode_is_not_called_episodes(make_store):
    rows = dict(summarise(make_store(episodes=1)))
    assert rows["task"].endswith("(1 episode)")
    assert rows["source"].endswith("(1 episode)")
    assert "1 episode, " in rows["stage 0"]


def test_quality_and_subsampling_take_effect(tmp_path):
    frames = smooth_frames(8, 96, 128)
    sizes = {}
    for quality, subsampling in ((95, "4:4:4"), (95, "4:2:0"), (60, "4:2:0")):
        features = {FRONT: {"shape": (96, 128, 3), "dtype": "uint8"}}
        path = tmp_path / f"{quality}{subsampling.replace(':', '')}.zarr"
        store = DemoStore.create(path, features, fps=10, quality=quality, subsampling=subsampling)
        with store.writer() as writer:
            writer.extend({FRONT: frames})
        sizes[quality, subsampling] = folder_bytes(store[0].path / FRONT)
    assert sizes[95, "4:4:4"] > sizes[95, "4:2:0"] > sizes[60, "4:2:0"]


def test_what_entries_of_a_feature_are_called_is_told(tmp_path):
    features = {"observation.state": {"shape": (2,), "dtype": "float32", "names": ["lift", "grip"]}}
    rows = dict(summarise(DemoStore.create(tmp_path / "named.zarr", features, fps=10)))
    assert rows["feature"] == "observation.state: 2 float32 (lift, grip)"
