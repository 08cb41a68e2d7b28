"""The replay buffer of diffusion_policy: all episodes end to end in flat Zarr arrays, v2 or v3.

    data/<key>           (N, ...) rows of all episodes
    meta/episode_ends    (E,) where each episode ends, cumulative and exclusive

Two key sets are in use: ``img``, ``state``, ``action`` of the simulated tasks, and that of real robots
(``robot_eef_pose``, ``robot_joint``, ..., ``timestamp``, ``stage``). UMI packs the same into a zip archive.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.stage_files import Segment
from robo_datasets.importers.zarr.zarr_v2 import Files, FolderFiles, ZarrV2Array, ZipFiles, read_document
from robo_datasets.importers.zarr.zarr_v3 import open_array
from robo_datasets.store.annotations import runs_of
from robo_datasets.store.features import FeatureSpec

ENDS = "meta/episode_ends"
STAGE, TIMESTAMP, RECEIVED, ACTION = "stage", "timestamp", "receive_timestamp", "action"
OBSERVATION, IMAGES, STATE = "observation.", "observation.images.", "observation.state"
REPLAY_BUFFER = "replay_buffer.zarr"

_MAX_EPISODES = 1 << 24
# Which of a buffer's arrays is the robot's state, where nobody says.
_STATES = ("state", "agent_pos", "robot_eef_pose", "robot_joint")


def open_files(path: Path) -> Files:
    """The folder or zip archive of a replay buffer; a folder that holds ``replay_buffer.zarr`` stands for it.

    Raises:
        ImportSourceError: there is none.
    """
    if path.is_dir():
        path = next((p for p in (path / REPLAY_BUFFER, path / f"{REPLAY_BUFFER}.zip") if p.exists()), path)
    if path.is_file():
        return ZipFiles(path)
    if not path.is_dir():
        raise ImportSourceError(f"there is no replay buffer at {path}; give the .zarr folder or the .zarr.zip file")
    return FolderFiles(path)


class BufferNotes(TypedDict, total=False):
    """What robo-rm notes in the attributes of a buffer that it exports."""

    format: int
    fps: float
    stages: list[str]
    robot: str | None
    contract_hash: str | None
    contract: dict[str, object] | None
    keys: dict[str, str]
    """Key of an array to the feature's key."""
    features: dict[str, FeatureSpec]
    episodes: list[EpisodeNotes]


class EpisodeNotes(TypedDict, total=False):
    """What the buffer notes of an episode."""

    uuid: str
    task: str
    success: bool | None
    attributes: dict[str, object]


class ReplayBuffer:
    """Arrays and episodes of a replay buffer, checked.

    Args:
        files: where it stands.
        allow_missing: whether chunks that are not there are read as the fill value.
        skip: names of arrays (or of the features they would be) to leave out, also such as cannot be read.

    Raises:
        ImportSourceError: it is not a replay buffer, or its arrays do not fit each other.
    """

    def __init__(self, files: Files, allow_missing: bool = False, skip: Collection[str] = ()) -> None:
        self.files = files
        everything = files.folders("data")
        keys = [key for key in everything if not {key, f"{OBSERVATION}{key}", f"{IMAGES}{key}"} & set(skip)]
        self.skipped = sorted(set(everything) - set(keys))
        if not keys or not any(files.read(f"{ENDS}/{name}") is not None for name in (".zarray", "zarr.json")):
            raise ImportSourceError(_not_a_buffer(files, everything))
        ends = open_array(files, ENDS, allow_missing)
        if len(ends.shape) != 1 or len(ends) > _MAX_EPISODES or ends.dtype.kind not in "iu":
            raise ImportSourceError(f"{ends.where} must be one whole number an episode, got {ends.shape} {ends.dtype}")
        self.ends = [int(end) for end in ends.rows(0, len(ends))]
        if not self.ends:
            raise ImportSourceError(f"{files.root} holds no episodes: {ENDS} is empty")
        self.starts = [0, *self.ends[:-1]]
        for number, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            if end < start or self.ends[-1] < 1:
                raise ImportSourceError(f"{ends.where}: episode {number} ends at row {end} and starts at {start}")
        self.arrays = {key: self._open(key, allow_missing) for key in keys}
        for array in self.arrays.values():
            if len(array) != self.ends[-1]:
                raise ImportSourceError(f"{array.where} has {len(array)} rows, {ENDS} ends at {self.ends[-1]}")
            array.check_ends()

    def rows(self, key: str, episode: int) -> np.ndarray:
        """All rows of an episode."""
        return self.arrays[key].rows(self.starts[episode], self.ends[episode])

    def _open(self, key: str, allow_missing: bool) -> ZarrV2Array:
        below = self.files.folders(f"data/{key}")
        documents = [self.files.read(f"data/{key}/{name}") for name in (".zarray", "zarr.json")]
        if below and (documents == [None, None] or b'"group"' in (documents[1] or b"")):
            raise ImportSourceError(
                f"{self.files.root}: data/{key} is a group of {', '.join(below[:8])}; only arrays directly below data/ "
                f"are read: move them there, or drop=[{key}] leaves it out"
            )
        try:
            return open_array(self.files, f"data/{key}", allow_missing)
        except ImportSourceError as error:
            raise ImportSourceError(f"{error}; drop=[{key}] leaves it out") from error

    def attributes(self) -> dict[str, object]:
        """The attributes of the buffer's root."""
        older = read_document(self.files, ".zattrs") or {}
        newer = (read_document(self.files, "zarr.json") or {}).get("attributes")
        return {**older, **(newer if isinstance(newer, dict) else {})}

    def notes(self) -> BufferNotes:
        """What robo-rm noted when it exported the buffer; empty for one of another origin."""
        notes = self.attributes().get("robo_rm")
        return cast(BufferNotes, notes) if isinstance(notes, dict) and notes.get("format") == 1 else {}


def _not_a_buffer(files: Files, keys: Sequence[str]) -> str:
    """What is wrong with a folder that lacks the arrays of a replay buffer."""
    others = sorted(path.name for path in files.root.glob("*.zarr*")) if files.root.is_dir() else []
    if others:
        return f"{files.root} is the folder of {', '.join(others[:5])}; give one of them as source="
    root = read_document(files, "zarr.json") or read_document(files, ".zgroup")
    if root is None and not keys:
        return f"{files.root} is not a replay buffer: it is not a Zarr group, and has no data/<key> and {ENDS}"
    lacking = [name for name, there in (("data/<key>", bool(keys)), (ENDS, False)) if not there]
    held = [*files.folders(""), *(f"data/{key}" for key in keys)][:12]
    return (
        f"{files.root} is not a replay buffer: it lacks {' and '.join(lacking)}; it has {', '.join(held) or 'nothing'}"
    )


def feature_keys(
    arrays: dict[str, ZarrV2Array], images: Collection[str], state: Sequence[str] | None, suffix: str = ""
) -> tuple[dict[str, str], list[str]]:
    """Array key to feature key, and the arrays that make up the state; ``suffix`` is taken off the names of cameras.

    ``images`` are the keys of the arrays that hold frames.

    Raises:
        ImportSourceError: an array named for the state is not there, or two become one feature.
    """
    if state is None:
        parts = [key for key in _STATES if key in arrays][:1]
    else:
        parts = list(state)
        missing = [key for key in parts if key not in arrays]
        if missing:
            raise ImportSourceError(f"the replay buffer has no arrays {missing} for the state; it has {sorted(arrays)}")
    names = {}
    for key in arrays:
        if key in (STAGE, TIMESTAMP, RECEIVED) or key in parts:
            continue
        if key in images:
            names[key] = IMAGES + key.removesuffix(suffix)
        else:
            names[key] = key if key == ACTION or key.startswith("next.") else OBSERVATION + key
    if len(set(names.values())) != len(names) or STATE in names.values():
        raise ImportSourceError(f"two arrays of the replay buffer would both be {STATE}: {sorted(names.values())}")
    return names, parts


def frame_rate(buffer: ReplayBuffer, fps: float | None) -> float:
    """Frames per second: as given, or from the time stamps.

    Raises:
        ImportSourceError: neither is there.
    """
    if fps is not None:
        return float(fps)
    if TIMESTAMP in buffer.arrays:
        full = (number for number in range(len(buffer.ends)) if buffer.starts[number] < buffer.ends[number])
        stamps = [buffer.rows(TIMESTAMP, number) for number in full]
        steps = [np.diff(part.astype(np.float64).ravel()) for part in stamps]
        step = float(np.median(np.concatenate(steps))) if any(map(len, steps)) else 0.0
        if step > 0:
            return round(1 / step, 1) if step < 1 else 1 / step
    raise ImportSourceError(f"{buffer.files.root} does not say how many frames per second it has; give, say, fps=10")


def stage_segments(buffer: ReplayBuffer, names: Sequence[str] | None) -> tuple[dict[int, list[Segment]], list[str]]:
    """Stages by episode, from the array ``stage`` of whole numbers; negative ones are unlabelled.

    Args:
        buffer: the replay buffer.
        names: name of stage 0, 1, ...; "stage 0", "stage 1", ... by default.

    Raises:
        ImportSourceError: the array is of another form, or a number has no name.
    """
    array = buffer.arrays.get(STAGE)
    if array is None:
        return {}, list(names or [])
    if array.dtype.kind not in "iu" or int(np.prod(array.shape[1:])) != 1:
        raise ImportSourceError(f"{array.where} must be one whole number a row, got {array.shape} {array.dtype}")
    found: dict[int, list[tuple[int, int, int]]] = {}
    highest = -1
    for number in range(len(buffer.ends)):
        if buffer.starts[number] == buffer.ends[number]:
            continue
        stage = buffer.rows(STAGE, number).ravel().astype(np.int64)
        highest = max(highest, int(stage.max()))
        found[number] = [(value, start, end) for start, end, value in runs_of(stage) if value >= 0]
    if highest >= 1000:
        raise ImportSourceError(f"{array.where} goes up to {highest}; stages are counted from 0")
    if names is None:
        names = [f"stage {number}" for number in range(highest + 1)]
    if highest >= len(names):
        raise ImportSourceError(f"{array.where} goes up to {highest}, stage_names has {len(names)} names")
    segments = {
        number: [(names[stage], start, end) for stage, start, end in runs] for number, runs in found.items() if runs
    }
    return segments, list(names)
