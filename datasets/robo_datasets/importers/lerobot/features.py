"""What a LeRobot dataset declares in meta/info.json, sorted by how it is read; the same for all versions."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robo_core.errors import ImportSourceError
from robo_datasets.store.features import BOOKKEEPING, LOW_DIM_DTYPES, FeatureSpec

FRAME_DTYPES = ("video", "image")
TEXT = "string"
# LeRobot 0.6: utterances, plans and subtasks; lists of rows with role, content, style (lerobot/datasets/language.py).
LANGUAGE = "language"
IMAGES = "observation.images."


class DeclaredFeature(FeatureSpec):
    """A feature of info.json whose shape and type were checked."""

    info: object
    video_info: object


@dataclass(frozen=True)
class DeclaredFeatures:
    """Features by how they are read; the shapes of cameras are (H, W, C)."""

    rows: dict[str, DeclaredFeature] = field(default_factory=dict)
    cameras: dict[str, DeclaredFeature] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    language: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Key to the reason why it cannot be kept."""
    listed: list[str] = field(default_factory=list)
    """Every key of info.json in its order, LeRobot's bookkeeping and dropped ones too."""

    @property
    def keys(self) -> set[str]:
        """All of them, those left out too."""
        return {*self.rows, *self.cameras, *self.text, *self.language, *self.left_out}


def read_info(path: Path) -> dict[str, object]:
    """Read ``meta/info.json`` of a LeRobot dataset of any version.

    Raises:
        ImportSourceError: the folder is missing or is not a LeRobot dataset.
    """
    if not path.is_dir():
        raise ImportSourceError(f"there is no folder {path}; give the LeRobot dataset as source=DIR")
    file = path / "meta/info.json"
    if not file.is_file():
        raise ImportSourceError(f"{path} is not a LeRobot dataset: {file} is missing")
    try:
        info = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImportSourceError(f"{file} is not JSON: {error}") from error
    if not isinstance(info, dict):
        raise ImportSourceError(f"{file} must hold a JSON object")
    return info


def declared_features(info: Mapping[str, object], path: Path, drop: Collection[str] = ()) -> DeclaredFeatures:
    """The features that ``info.json`` declares, without LeRobot's bookkeeping and those to ``drop``.

    Raises:
        ImportSourceError: they are malformed, or none can be kept; names the key.
    """
    features = info.get("features")
    file = path / "meta/info.json"
    if not isinstance(features, dict) or not features:
        raise ImportSourceError(f"{file} declares no features")
    declared = DeclaredFeatures(listed=list(features))
    for key, entry in features.items():
        if key not in BOOKKEEPING and key not in drop:
            _sort_in(declared, key, entry, file)
    if not declared.rows and not declared.cameras and declared.left_out:
        key, reason = next(iter(declared.left_out.items()))
        raise ImportSourceError(f"{file} declares nothing that a store can keep: {key} {reason}")
    return declared


def _sort_in(declared: DeclaredFeatures, key: str, entry: object, file: Path) -> None:
    entry = entry if isinstance(entry, dict) else {}
    shape, dtype, names = entry.get("shape"), entry.get("dtype"), entry.get("names")
    if dtype in (TEXT, "large_string", "str"):
        declared.text.append(key)
        return
    if dtype == LANGUAGE:
        declared.language.append(key)
        return
    if isinstance(shape, int) and not isinstance(shape, bool):
        shape = [shape]
    sides = [side for side in shape if isinstance(side, int) and side >= 0] if isinstance(shape, list) else []
    if dtype not in (*LOW_DIM_DTYPES, *FRAME_DTYPES):
        declared.left_out[key] = f"has the unknown dtype {dtype!r}"
    elif not isinstance(shape, list) or len(sides) != len(shape):
        raise ImportSourceError(f"{file}: feature {key} has the shape {shape!r}; drop=[{key}] leaves it out")
    elif 0 in sides:
        declared.left_out[key] = f"has the shape {shape}: there is nothing in it"
    else:
        place = declared.cameras if dtype in FRAME_DTYPES else declared.rows
        sides = _channels_last(sides, names, key, file) if dtype in FRAME_DTYPES else sides
        flags = entry.get("info"), entry.get("video_info")
        place[key] = DeclaredFeature(
            dtype=str(dtype), shape=tuple(sides), names=names, info=flags[0], video_info=flags[1]
        )


def _channels_last(shape: list[int], names: object, key: str, file: Path) -> list[int]:
    if len(shape) == 2:
        shape = [*shape, 1]
    if len(shape) != 3:
        raise ImportSourceError(
            f"{file}: camera {key} has the shape {shape}, three sides are needed; drop=[{key}] leaves it out"
        )
    first = names[0] if isinstance(names, list) and names else None
    if str(first).startswith("channel") or (shape[0] in (1, 3) and shape[2] not in (1, 3, 4)):
        shape = [shape[1], shape[2], shape[0]]
    if shape[2] not in (1, 3, 4):
        raise ImportSourceError(
            f"{file}: camera {key} has {shape[2]} channels; 1, 3 or 4 are read; drop=[{key}] leaves it out"
        )
    return shape


def choose_cameras(cameras: Collection[str], wanted: Sequence[str] | None, path: Path) -> list[str]:
    """Keys of the cameras to import: all, or those named (``cam_high`` or the full key).

    Raises:
        ImportSourceError: a camera that the dataset does not have.
    """
    if wanted is None:
        return list(cameras)
    chosen = []
    for name in wanted:
        matches = [key for key in cameras if key == name or key.removeprefix(IMAGES) == name]
        if not matches:
            raise ImportSourceError(f"{path} has no camera {name!r}; it has {list(cameras)}")
        chosen += matches
    return [key for key in cameras if key in chosen]


def undeclared_cameras(path: Path, declared: Collection[str]) -> list[str]:
    """Folders with videos that no declared feature names, of version 2 (videos/chunk-000/KEY) or 3 (videos/KEY).

    Args:
        path: the dataset.
        declared: keys of all features.
    """
    found = set()
    for folder in _folders(path / "videos"):
        cameras = _folders(folder) if folder.name.startswith("chunk-") else [folder]
        found |= {one.name for one in cameras if one.name not in declared and next(one.rglob("*.mp4"), None)}
    return sorted(found)


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []
