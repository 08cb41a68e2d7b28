"""The weights that `benchmarks/rabc.py` compares, each written into the store under a name of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robo_datasets import DemoStore
from robo_policies.cloning.lerobot_versions import from_lerobot
from robo_rm.weights.options import Calibration
from robo_rm.weights.rabc import store_weights

Progress = Mapping[str, npt.NDArray[np.float32]]

PAPER_HORIZON = 25
"""Frames ahead in the paper (SARM, arXiv 2509.25358)."""
SECONDS_AHEAD = 0.6
"""What `robo-rm score` looks ahead in calibrated mode."""
TRUE_PROGRESS = "simulator.progress"
MODES = {"paper": "paper", "successes": "success_only", "top_fraction": "top_fraction"}
"""What `robo-rm score` calls the weights of an arm, where it is not calibrated mode."""


def learned_progress(store: DemoStore) -> Progress:
    """(T,) progress of every episode, as the reward model predicted it."""
    derived = store.derived("progress")
    return {uuid: derived.read(uuid)["progress"] for uuid in store.uuids}


def true_progress(store: DemoStore) -> Progress:
    """(T,) progress of every episode, as the simulator knows it."""
    return {uuid: np.asarray(store.episode(uuid)[TRUE_PROGRESS][:])[:, 0] for uuid in store.uuids}


def lerobot_weights(progress: Progress, chunk_size: int) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of LeRobot's own class for the same progress, before it scales each batch to a sum."""
    import pandas as pd

    lengths = [len(values) for values in progress.values()]
    flat = np.concatenate(list(progress.values()))
    table = pd.DataFrame(
        {
            "index": np.arange(len(flat)),
            "episode_index": np.repeat(np.arange(len(lengths)), lengths),
            "progress_sparse": flat,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "progress.parquet"
        table.to_parquet(path)
        theirs = from_lerobot("RABCWeights")(path, chunk_size=chunk_size, device="cpu")
    deltas = np.array([theirs._compute_delta(index) for index in range(len(flat))], dtype=np.float32)
    parts = np.split(theirs._compute_weights(deltas), np.cumsum(lengths)[:-1])
    return dict(zip(progress, parts, strict=True))


def write_weights(store: DemoStore, arm: str, chunk_size: int) -> str:
    """Write the weights of ``arm``, any but bc; returns the name that train-policy reads."""
    name = f"rabc_{arm}"
    ahead = {"paper": PAPER_HORIZON, "lerobot": chunk_size}.get(arm, max(2, round(SECONDS_AHEAD * store.fps)))
    provenance = {
        "arm": arm,
        "horizon": ahead,
        "store": store.content_hash(),
        "calibration": asdict(Calibration()),
        "progress": TRUE_PROGRESS if arm == "oracle" else store.derived("progress").provenance,
    }
    derived = store.derive(name, provenance=provenance)
    if all(uuid in derived for uuid in store.uuids):
        return name
    progress = true_progress(store) if arm == "oracle" else learned_progress(store)
    if arm == "lerobot":
        weights: Mapping[str, npt.NDArray[np.float32]] = lerobot_weights(progress, chunk_size)
    else:
        success = {uuid: store.episode(uuid).success for uuid in store.uuids}
        mode = MODES.get(arm, "calibrated")
        weights = store_weights(progress, ahead, mode=mode, success=success).weights
    for uuid in store.uuids:
        derived.write(uuid, {"weight": np.asarray(weights[uuid], np.float32)})
    return name
