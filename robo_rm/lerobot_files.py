"""Progress and weights of a store beside the LeRobot dataset of its episodes, so that plain LeRobot trains by them.

    lerobot-train --policy.type=pi0 --dataset.root=DIR ... --sample_weighting.type=rabc

reads ``DIR/sarm_progress.parquet`` with no robo-rm installed. LeRobot weights pi0, pi05 and SmolVLA (and other policies
that take a loss per sample); its ACT and Diffusion refuse weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robo_core.errors import StoreError
from robo_datasets import DemoStore
from robo_datasets.lerobot_progress import DatasetEpisodes, write_progress, write_rows
from robo_rm.weights.lerobot_form import balancing_progress, progress_for_weights

WEIGHTS_FILE = "robo_rm_{name}_chunk_{chunk}.parquet"


def write_lerobot_progress(store: DemoStore, root: Path, progress: Mapping[str, npt.NDArray[np.floating]]) -> Path:
    """Write ``sarm_progress.parquet`` beside the dataset in ``root``; returns its path.

    Both columns hold the one progress there is, so that ``--sample_weighting.head_mode`` may be either.

    Args:
        store: the episodes.
        root: a LeRobot v3.0 dataset, exported from this store or the one that it was imported from.
        progress: by uuid, (T,) in [0, 1].

    Raises:
        StoreError: the dataset does not hold the store's episodes, all of them and no others.
    """
    return write_progress(root, [store.episode(uuid) for uuid in progress], progress, progress)


def write_lerobot_weights(
    store: DemoStore, root: Path, weights: Mapping[str, npt.NDArray[np.floating]], chunk: int, name: str
) -> Path:
    """Write a progress file of which LeRobot makes ``weights`` for a policy with chunks of ``chunk``; returns its path.

    Equal within 1e-6, but for the last frame of each episode, which has weight 0: see `robo_rm.weights.lerobot_form`.

    Args:
        store: the episodes.
        root: as in `write_lerobot_progress`.
        weights: by uuid, (T,) in [0, 1].
        chunk: actions in the policy's chunk; LeRobot measures gains over it.
        name: of the weights, which becomes part of the file's.

    Raises:
        StoreError: as in `write_lerobot_progress`; or a weight is not in [0, 1].
        ConfigError: the chunk is too short.
    """
    places = DatasetEpisodes(root).check([store.episode(uuid) for uuid in weights])
    found = sorted(zip(places, weights, strict=True), key=lambda pair: pair[0].number)
    ordered = [np.asarray(weights[uuid]) for _, uuid in found]
    for one, (_, uuid) in zip(ordered, found, strict=True):
        if not ((one >= 0) & (one <= 1)).all():
            raise StoreError(f"{store.path}: the weights of episode {uuid} are not all in [0, 1]")
    made_up = balancing_progress(ordered, chunk)
    values = [*(progress_for_weights(one, chunk) for one in ordered), *made_up]
    lengths = [len(one) for one in values]
    numbers = [place.number for place, _ in found]
    after = max(numbers) + 1
    numbers += list(range(after, after + len(made_up)))
    starts = [place.start for place, _ in found]
    end = starts[-1] + len(ordered[-1])
    starts += [end + number * chunk for number in range(len(made_up))]
    frame = np.concatenate([np.arange(length) for length in lengths])
    column = np.concatenate(values)
    return write_rows(
        root / WEIGHTS_FILE.format(name=name, chunk=chunk),
        {
            "index": np.repeat(starts, lengths) + frame,
            "episode_index": np.repeat(numbers, lengths),
            "frame_index": frame,
            "progress_sparse": column,
            "progress_dense": column,
        },
    )
