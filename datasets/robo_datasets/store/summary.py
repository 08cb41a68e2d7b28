"""What a store holds, as rows of a table."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from robo_core.console import shortened
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.layout import DERIVED

MAX_LISTED = 12


def summarise(store: DemoStore) -> list[tuple[str, str]]:
    """Rows (what, value): episodes, hours, cameras, sizes, tasks, stages, success counts.

    Raises:
        CorruptionError: an annotation or stage file is damaged.
    """
    lengths = np.array(list(store.lengths.values()) or [0])
    frames = int(lengths.sum())
    derived = folder_bytes(store.path / DERIVED)
    size = folder_bytes(store.path) - derived
    rows = [
        ("store", str(store.path)),
        ("episodes", f"{len(store)}"),
        ("frames", f"{frames} at {store.fps:g} frames/s, {frames / store.fps / 3600:.2f} h"),
    ]
    if len(store):
        span = f"{lengths.min()} to {lengths.max()} frames, median {np.median(lengths):.0f}"
        rows.append(("episode length", f"{span} ({np.median(lengths) / store.fps:.1f} s)"))
    rows.append(("size", f"{_bytes(size)}, {_bytes(size / frames)} a frame" if frames else _bytes(size)))
    names = _derived_names(store.path)
    if names:  # an empty store has the folder with its own record, which says nothing
        rows.append(("derived", f"{_bytes(derived)} that can be computed again: {', '.join(names)}"))
    if store.robot:
        rows.append(("robot", store.robot))
    for key, feature in store.schema.items():
        shape = "x".join(map(str, feature.shape))
        how = ""
        if feature.codec == "jpeg":
            how = f", JPEG quality {feature.quality} {feature.subsampling}"
        elif feature.codec:
            how = f", {feature.codec}"
        elif not feature.is_frames and (names := _flat(feature.names)):
            how = f" ({shortened(names)})"
        rows.append(("camera" if feature.is_frames else "feature", f"{key}: {shape} {feature.dtype}{how}"))
    rows += _origins(store)
    rows += _outcomes(store)
    return rows


def _flat(names: object) -> list[str]:
    """The names of a feature's values; LeRobot's older datasets have them in lists of lists, or by groups."""
    if isinstance(names, dict):
        return _flat(list(names.values()))
    if not isinstance(names, list):
        return []
    return [text for name in names for text in (_flat(name) if isinstance(name, list) else [str(name)])]


def _origins(store: DemoStore) -> list[tuple[str, str]]:
    """Where the episodes came from: by format and path of their source."""
    counts: Counter[str] = Counter()
    for episode in store:
        source = episode.source
        if isinstance(source, dict) and "format" in source:
            counts[f"{source['format']} {source.get('path') or source.get('name') or ''}".rstrip()] += 1
        else:
            counts["recorded, or of unknown origin"] += 1
    rows = [("source", f"{origin} ({_episodes(count)})") for origin, count in counts.most_common(MAX_LISTED)]
    if len(counts) > MAX_LISTED:
        rows.append(("source", f"and {len(counts) - MAX_LISTED} more"))
    return rows


def _outcomes(store: DemoStore) -> list[tuple[str, str]]:
    tasks: Counter[str] = Counter()
    success: Counter[object] = Counter()
    episodes_in: Counter[int] = Counter()
    frames_in: Counter[int] = Counter()
    labelled = 0
    for episode in store:
        tasks[episode.task or "(no instruction)"] += 1
        success[episode.success] += 1
        values, counts = np.unique(episode.stage, return_counts=True)
        labelled += bool((values >= 0).any())
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value >= 0:
                episodes_in[value] += 1
                frames_in[value] += count
    rows = [("task", f"{task} ({_episodes(count)})") for task, count in tasks.most_common(MAX_LISTED)]
    if len(tasks) > MAX_LISTED:
        rows.append(("task", f"and {len(tasks) - MAX_LISTED} more"))
    rows.append(("success", f"{success[True]} yes, {success[False]} no, {success[None]} unknown"))
    rows.append(("stages", f"{labelled} of {len(store)} episodes annotated"))
    for number, name in enumerate(store.stages):
        episodes = episodes_in[number]
        mean = frames_in[number] / episodes / store.fps if episodes else 0.0
        rows.append((f"stage {number}", f"{name}: {_episodes(episodes)}, {mean:.1f} s on average"))
    return rows


def _episodes(count: int) -> str:
    return f"{count} episode" if count == 1 else f"{count} episodes"


def _derived_names(root: Path) -> list[str]:
    """Names of the derived sets, and how many of each."""
    folder = root / DERIVED
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    sets = Counter(made.name.rsplit("-", 1)[0] for made in found if made.is_dir())
    return [f"{name} ({count} set{'' if count == 1 else 's'})" for name, count in sorted(sets.items())]


def folder_bytes(path: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
