"""The output folder: resolved settings, flat metrics, and clear refusals."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from robo_datasets.errors import ConfigError
from robo_datasets.outputs import OutputFolder


@dataclass(frozen=True)
class Settings:
    store: str = "a.zarr"
    limit: float | None = None


def test_it_writes_the_settings_and_metrics_that_json_can_hold(tmp_path):
    out = OutputFolder(tmp_path / "new/results", Settings())
    out.write_metrics({"voc": np.float32(0.5), "mse": float("nan"), "episodes": np.int64(3)})
    assert out.path("config.yaml").read_text() == "store: a.zarr\nlimit: null\n"
    assert json.loads(out.path("metrics.json").read_text()) == {"episodes": 3, "mse": None, "voc": 0.5}
    assert sorted(path.name for path in out.folder.iterdir()) == ["config.yaml", "metrics.json"]


@pytest.mark.parametrize("case", ["file", "empty", "below a file"])
def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path, case):
    file = tmp_path / "file"
    file.write_text("mine")
    place = {"file": file, "empty": "", "below a file": file / "sub"}[case]
    with pytest.raises(ConfigError, match="out"):
        OutputFolder(place)
    assert file.read_text() == "mine"
