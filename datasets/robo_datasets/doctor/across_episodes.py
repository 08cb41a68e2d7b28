"""Checks that need the whole store: ranges, constant dimensions, mixed units, duplicates, lag of state and action."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from robo_datasets.doctor.findings import WARNING, Finding
from robo_datasets.doctor.signals import Scales, finite_rows, flat_rows
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode

DEGREES = 180 / np.pi
LAG_SECONDS = 1.0
LAG_LIMIT_SECONDS = 0.5
MIN_CORRELATION = 0.3
_SAMPLE_EPISODES = 64


def feature_scales(store: DemoStore, uuids: Sequence[str]) -> dict[str, Scales]:
    """Range and typical step of every dimension of every float feature, over the given episodes."""
    scales = {}
    for key, feature in store.schema.items():
        if feature.is_frames or np.dtype(feature.dtype).kind != "f":
            continue
        lows, highs, steps = [], [], []
        for uuid in uuids:
            empty = ~np.isfinite(flat_rows(store.episode(uuid), key)).any(axis=0)
            rows = finite_rows(store.episode(uuid), key)
            lows.append(np.where(empty, np.inf, rows.min(axis=0)))
            highs.append(np.where(empty, -np.inf, rows.max(axis=0)))
            if len(rows) > 1:
                steps.append(np.percentile(np.abs(np.diff(rows, axis=0)), 99, axis=0))
        if lows:
            typical = np.median(steps, axis=0) if steps else np.zeros_like(lows[0])
            low, high = np.min(lows, axis=0), np.max(highs, axis=0)
            # A dimension without a single number has no range; it is not constant.
            low, high = np.where(low > high, np.nan, low), np.where(low > high, np.nan, high)
            scales[key] = Scales(low, high, typical)
    return scales


def check_constant(scales: dict[str, Scales], episodes: int) -> Iterator[Finding]:
    """Dimensions that never change in any episode."""
    if episodes < 1:
        return
    for key, scale in scales.items():
        dims = np.flatnonzero(scale.span == 0)
        if len(dims):
            what = f"{key}: dimensions {dims.tolist()} are constant ({scale.low[dims[0]]:.4g}) throughout the store"
            yield Finding("constant", WARNING, key, what)


def check_units(store: DemoStore, uuids: Sequence[str], scales: dict[str, Scales]) -> Iterator[Finding]:
    """Degrees among radians: in some dimensions, or in some episodes."""
    for key, scale in scales.items():
        if key not in ("observation.state", "action"):
            continue
        size = np.maximum(np.abs(scale.low), np.abs(scale.high))
        moving = scale.span > 0
        small = moving & (size <= 2 * np.pi)
        large = np.flatnonzero(moving & (size > 4 * np.pi))
        if len(large) and small.sum() >= len(large):
            what = (
                f"{key}: dimensions {large.tolist()} reach {size[large].max():.4g} while others stay within "
                f"{size[small].max():.3g}: degrees among radians, or another unit"
            )
            yield Finding("mixed_units", WARNING, key, what)
        yield from _check_episode_units(store, uuids, key)


def _check_episode_units(store: DemoStore, uuids: Sequence[str], key: str) -> Iterator[Finding]:
    if len(uuids) < 3:
        return
    sizes = np.array([np.percentile(np.abs(finite_rows(store.episode(uuid), key)), 90, axis=0) for uuid in uuids])
    typical = np.median(sizes, axis=0)
    usable = typical > 1e-3
    if not usable.any():
        return
    ratios = np.median(sizes[:, usable] / typical[usable], axis=1)
    for uuid, ratio in zip(uuids, ratios, strict=True):
        if DEGREES / 2.5 < ratio < DEGREES * 2.5 or DEGREES / 2.5 < 1 / max(ratio, 1e-9) < DEGREES * 2.5:
            what = f"{key} is {ratio:.3g} times as large as in the other episodes: degrees among radians"
            yield Finding("mixed_units", WARNING, uuid, what)


def check_duplicates(store: DemoStore, uuids: Sequence[str]) -> Iterator[Finding]:
    """Episodes that are another one again: the same to the last byte, or the same numbers with other images.

    Found from the stored bytes, so that nothing is decoded; images are read only where the numbers are equal. Time
    stamps and stages do not count: one demonstration may be timed by two clocks and be labelled twice. Numbers that
    never change say nothing.
    """
    rows = [key for key, feature in store.schema.items() if not feature.is_frames]
    images = [key for key, feature in store.schema.items() if feature.is_frames]
    alike: dict[tuple[int, str], list[str]] = {}
    for uuid in uuids:
        episode = store.episode(uuid)
        moving = _moves(episode, rows)
        if moving or images:
            stored = _stored(episode, rows) if moving else ""
            alike.setdefault((episode.length, stored), []).append(uuid)
    for (_, stored), members in alike.items():
        first: dict[str, str] = {}
        for uuid in members if len(members) > 1 else ():
            frames = _stored(store.episode(uuid), images)
            if frames in first:
                what, other = "equal to the last byte", first[frames]
            elif stored and first:
                what, other = "with the same numbers bit for bit and other images", next(iter(first.values()))
            else:
                what, other = "", ""
            first.setdefault(frames, uuid)
            if other:
                message = (
                    f"episode {uuid}{_origin(store, uuid)} is episode {other}{_origin(store, other)} again, {what}"
                )
                yield Finding("duplicate", WARNING, uuid, message)


def _stored(episode: Episode, keys: Sequence[str]) -> str:
    """A hash over the stored arrays of an episode. (Not their checksums: those of a checked chunk are all alike.)"""
    digest = hashlib.sha256()
    for key in sorted(keys):
        for path in sorted((episode.path / key).rglob("c*")):
            if path.is_file():
                digest.update(f"{key}\0{path.name}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _moves(episode: Episode, keys: Sequence[str]) -> bool:
    """Whether any number of an episode changes."""
    for key in keys:
        values = episode[key][:]
        if len(values) > 1 and bool((values[1:] != values[:-1]).any()):
            return True
    return False


def _origin(store: DemoStore, uuid: str) -> str:
    source = store.episode(uuid).source
    if not isinstance(source, dict) or "name" not in source:
        return ""
    return f" (episode {source.get('episode')} of {source['name']})"


def check_lag(lag: tuple[float, float] | None, fps: float) -> Iterator[Finding]:
    """State that follows the action late, or runs ahead of it: images and actions may be misaligned.

    Args:
        lag: what ``state_action_lag`` found.
        fps: frames per second.
    """
    if lag is None:
        return
    seconds, correlation = lag
    if seconds > LAG_LIMIT_SECONDS or seconds < -0.5 / fps:
        how = f"follows action by {seconds:.2f} s" if seconds > 0 else f"runs {-seconds:.2f} s ahead of action"
        what = f"observation.state {how} (correlation {correlation:.2f}): check the alignment of the two"
        yield Finding("lag", WARNING, "observation.state", what)


def state_action_lag(store: DemoStore, uuids: Sequence[str], scales: dict[str, Scales]) -> tuple[float, float] | None:
    """Seconds by which the state's motion follows the action's, and their correlation at that lag.

    From the cross-correlation of the positions' steps, summed over dimensions and episodes. None where state and
    action are not of the same shape, or do not follow each other.
    """
    schema = store.schema
    state, action = schema.get("observation.state"), schema.get("action")
    if state is None or action is None or state.shape != action.shape or "action" not in scales:
        return None
    most = max(round(LAG_SECONDS * store.fps), 2)
    shifts = range(-most, most + 1)
    sums = np.zeros((3, len(shifts)))  # of wanted * moved, wanted^2 and moved^2, over the frames that overlap
    span = np.where(scales["action"].span > 0, scales["action"].span, np.inf)
    for uuid in uuids[:: max(len(uuids) // _SAMPLE_EPISODES, 1)]:
        episode = store.episode(uuid)
        if episode.length < 4 * most:
            continue
        moved, wanted = (np.diff(finite_rows(episode, key), axis=0) / span for key in ("observation.state", "action"))
        for number, shift in enumerate(shifts):
            a = wanted[max(-shift, 0) : len(wanted) - max(shift, 0)]
            b = moved[max(shift, 0) : len(moved) - max(-shift, 0)]
            sums[:, number] += (a * b).sum(), (a * a).sum(), (b * b).sum()
    products, norms = sums[0], np.sqrt(sums[1] * sums[2])
    if not (norms > 0).all():
        return None
    best = int(np.argmax(products / norms))
    correlation = float(products[best] / norms[best])
    return ((best - most) / store.fps, correlation) if correlation >= MIN_CORRELATION else None
