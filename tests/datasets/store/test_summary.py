"""What ``robo-rm info store=`` shows fits a screen, and counts stages as the settings do."""

from __future__ import annotations

import numpy as np
import pytest

from robo_datasets import DemoStore
from robo_datasets.store.summary import summarise

JOINTS = [f"joint_{number}" for number in range(26)]


@pytest.mark.parametrize("names", [JOINTS, [JOINTS], {"motors": JOINTS}])
def test_many_names_are_shortened(tmp_path, names):
    features = {"action": {"dtype": "float32", "shape": [26], "names": names}}
    rows = summarise(DemoStore.create(tmp_path / "a.zarr", features, 10.0))
    assert ("feature", "action: 26 float32 (joint_0, joint_1, joint_2 ... 26 in all)") in rows
    assert [value for _, value in rows if value.endswith((": ", ":"))] == []


def test_info_counts_stages_from_0_and_keeps_every_row(tmp_path, run_command):
    features = {"action": {"dtype": "float32", "shape": [1]}, "observation.state": {"dtype": "float32", "shape": [1]}}
    store = DemoStore.create(tmp_path / "a.zarr", features, 10.0, ["reach", "grasp"])
    with store.writer(task="put it away") as writer:
        for stage in (0, 0, 1):
            values = {key: np.zeros(1, np.float32) for key in features}
            writer.add(values, stage=stage)
    code, out, _ = run_command("info", f"store={tmp_path / 'a.zarr'}", f"out={tmp_path / 'out'}")
    assert code == 0
    assert "stage 0  " in out
    assert out.index("stage 0") < out.index("reach: 1 episode") < out.index("stage 1") < out.index("grasp: 1 episode")
    assert f"next: robo-rm train-reward store={tmp_path / 'a.zarr'} out={tmp_path / 'a_rm'}" in out
    written = (tmp_path / "out/metrics.json").read_text()
    assert "action: 1 float32" in written
    assert "observation.state: 1 float32" in written
