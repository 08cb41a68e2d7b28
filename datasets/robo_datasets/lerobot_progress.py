"""Progress of every frame as LeRobot's files have it: ``sarm_progress.parquet`` beside a dataset, written and read.

One row a frame: ``index`` (over the whole dataset), ``episode_index``, ``frame_index``, ``progress_sparse`` and, where
there is one, ``progress_dense``. LeRobot's SARM, Robometer and TOPReward write such files, and its training weights
samples by them (``--sample_weighting.type=rabc``). Frames without an estimate are NaN there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from robo_core.errors import StoreError
from robo_datasets import lerobot_layout as v3
from robo_datasets.importers.columns import read_table
from robo_datasets.importers.lerobot.v3_meta import read_episode_rows
from robo_datasets.store.episode import Episode

PROGRESS_FILE = "sarm_progress.parquet"
COLUMNS = ("index", "episode_index", "frame_index")
SPARSE, DENSE = "progress_sparse", "progress_dense"

Progress = Mapping[str, npt.NDArray[np.floating]]


@dataclass(frozen=True)
class DatasetEpisode:
    """Where an episode stands in a LeRobot dataset: its number, its first row in the whole, and its length."""

    number: int
    start: int
    length: int


class DatasetEpisodes:
    """The episodes of a LeRobot v3.0 dataset, found by the store's episodes that they are.

    A store's episode is found by its uuid, which robo-rm's export writes; else by the dataset and number that it was
    imported from.

    Raises:
        StoreError: ``root`` is not a LeRobot v3.0 dataset.
        ImportSourceError: its list of episodes is damaged.
    """

    def __init__(self, root: Path) -> None:
        if not (root / v3.EPISODES_FOLDER).is_dir():
            raise StoreError(f"{root} is not a LeRobot v3.0 dataset: it has no {v3.EPISODES_FOLDER}")
        self.root = root
        self._by_number: dict[int, DatasetEpisode] = {}
        self._by_uuid: dict[str, DatasetEpisode] = {}
        for row in read_episode_rows(root).values:
            number, start = _number(row, "episode_index"), _number(row, "dataset_from_index")
            found = DatasetEpisode(number, start, _number(row, "dataset_to_index") - start)
            self._by_number[number] = found
            if isinstance(uuid := row.get(v3.UUID), str):
                self._by_uuid[uuid] = found

    def __len__(self) -> int:
        return len(self._by_number)

    def check(self, episodes: Sequence[Episode]) -> list[DatasetEpisode]:
        """The dataset's episodes that ``episodes`` of a store are; all of them, for LeRobot weights every sample.

        Raises:
            StoreError: the dataset lacks one of them, or holds one that is not among them.
        """
        found = [self.find(episode) for episode in episodes]
        if len({place.number for place in found}) != len(self):
            raise StoreError(
                f"{self.root} has {len(self)} episodes and the store has {len(found)} of them: LeRobot would give the "
                "others full weight; export the store again"
            )
        return found

    def find(self, episode: Episode) -> DatasetEpisode:
        """The episode of the dataset that ``episode`` of a store is.

        Raises:
            StoreError: the dataset does not have it, or has it with another number of frames.
        """
        found = self._by_uuid.get(episode.uuid)
        source = episode.source
        if found is None and isinstance(source, dict) and str(source.get("format", "")).startswith("lerobot"):
            same = source.get("path") == str(self.root.resolve()) or source.get("name") == self.root.resolve().name
            number = source.get("episode")
            found = self._by_number.get(number) if same and isinstance(number, int) else None
        if found is None:
            raise StoreError(
                f"{self.root} does not have episode {episode.uuid}: it is neither an export of this store nor what the "
                "episode was imported from; export the store with robo-rm export lerobot"
            )
        if found.length != episode.length:
            raise StoreError(
                f"{self.root}: episode {found.number} has {found.length} frames, and {episode.uuid} in the store has "
                f"{episode.length}; export the store again"
            )
        return found


def write_progress(
    root: Path, episodes: Sequence[Episode], sparse: Progress, dense: Progress | None = None, name: str = PROGRESS_FILE
) -> Path:
    """Write the progress of a store's episodes beside the LeRobot dataset that holds them.

    Args:
        root: the dataset.
        episodes: those of the store that the dataset has, in any order.
        sparse: by uuid, (T,) progress in [0, 1].
        dense: the same by the finer stages, where the model tells them apart.
        name: of the file.

    Raises:
        StoreError: the dataset lacks an episode of the store's, or holds one that the store does not have.
    """
    places = DatasetEpisodes(root).check(episodes)
    found = sorted(zip(places, (episode.uuid for episode in episodes), strict=True), key=lambda pair: pair[0].number)
    columns = {SPARSE: sparse} if dense is None else {SPARSE: sparse, DENSE: dense}
    table = {
        "index": np.concatenate([place.start + np.arange(place.length) for place, _ in found]),
        "episode_index": np.repeat([place.number for place, _ in found], [place.length for place, _ in found]),
        "frame_index": np.concatenate([np.arange(place.length) for place, _ in found]),
        **{
            column: np.concatenate([np.asarray(values[uuid], np.float32) for _, uuid in found])
            for column, values in columns.items()
        },
    }
    return write_rows(root / name, table)


def write_rows(path: Path, table: Mapping[str, npt.NDArray[np.generic]]) -> Path:
    """Write the columns of a progress file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.table({key: pa.array(values) for key, values in table.items()}), partial)
    partial.replace(path)
    return path


class ProgressFile:
    """A progress file, whoever wrote it, beside the dataset that it is of.

    Attributes:
        path: of the file.
        columns: the kinds of progress in it, ``progress_sparse`` first.

    Raises:
        StoreError: the file has no progress, or the folder it lies in is not a LeRobot v3.0 dataset.
        ImportSourceError: it is not a parquet file.
    """

    def __init__(self, path: Path) -> None:
        table = read_table(path)
        self.path = path
        self.columns = [name for name in (SPARSE, DENSE) if name in table.column_names]
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing or not self.columns:
            raise StoreError(
                f"{path} is not a progress file of LeRobot's: it has no {' and no '.join(missing or [SPARSE])}"
            )
        self._episodes = DatasetEpisodes(path.parent)
        table = table.sort_by("index")
        self._index = np.asarray(table["index"].to_numpy(zero_copy_only=False), np.int64)
        self._values = {
            name: np.asarray(table[name].to_numpy(zero_copy_only=False), np.float32) for name in self.columns
        }

    def progress(self, episode: Episode, column: str = SPARSE) -> npt.NDArray[np.float32]:
        """The progress (T,) of an episode of a store.

        Raises:
            StoreError: the file lacks the episode, some of its frames, or an estimate for one.
        """
        place = self._episodes.find(episode)
        rows = slice(*np.searchsorted(self._index, [place.start, place.start + place.length]))
        values = self._values[column][rows]
        if not np.array_equal(self._index[rows], place.start + np.arange(place.length)):
            raise StoreError(f"{self.path} has {len(values)} of the {place.length} frames of episode {place.number}")
        if not np.isfinite(values).all():
            frame = int(np.argmin(np.isfinite(values)))
            raise StoreError(f"{self.path}: {column} of episode {place.number} is {values[frame]} at frame {frame}")
        return values


def _number(row: Mapping[str, object], key: str) -> int:
    value = row.get(key)
    if not isinstance(value, int):
        raise StoreError(f"the dataset's list of episodes has {key}={value!r}; a whole number is needed")
    return value
