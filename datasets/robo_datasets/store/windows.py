"""Training windows of a store: which frames each one needs, from one plan, and a reader and an order for them.

A window belongs to one frame of one episode, its anchor. For every key it takes the frames at some time offsets from
the anchor; one plan gives all of them, so that an image can never go with another frame's action. What lies outside
the episode is filled with its first or last frame and marked as padding.

Reward models, policies and RL demonstrations draw windows of their own kinds. They stand on `read_columns` for what is
low-dimensional, on `inside` for what is padding, and on `robo_datasets.store.decoded_frames` for images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Full, Queue
from typing import Generic, TypeVar

import numpy as np

from robo_core.errors import StoreError
from robo_core.threads import share, spans
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode

PAD_SUFFIX = "_is_pad"
_POLL_S = 0.1

Batch = TypeVar("Batch")


def inside(wanted: np.ndarray, first: int | np.ndarray, last: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames held to [first, last] of their episode, and which of them lay outside and are padding."""
    held = np.minimum(np.maximum(wanted, first), last)
    return held, held != wanted


@dataclass(frozen=True)
class Columns:
    """Low-dimensional features of E episodes in memory, one episode after the other.

    Attributes:
        arrays: key -> (N, ...) float32, all episodes one after the other.
        uuids: the episodes, in that order.
        starts: (E + 1,) int64, episode e holds the frames ``starts[e]`` to ``starts[e + 1] - 1``.
    """

    arrays: Mapping[str, np.ndarray]
    uuids: tuple[str, ...]
    starts: np.ndarray

    @property
    def frames(self) -> int:
        """Number of frames N."""
        return int(self.starts[-1])

    @property
    def ends(self) -> np.ndarray:
        """(N,) int64, for each frame the first frame after its episode."""
        return np.repeat(self.starts[1:], np.diff(self.starts))

    @property
    def firsts(self) -> np.ndarray:
        """(N,) int64, for each frame the first frame of its episode."""
        return np.repeat(self.starts[:-1], np.diff(self.starts))

    def by_episode(self, key: str) -> list[np.ndarray]:
        """A feature of each episode, (T, ...)."""
        return np.split(self.arrays[key], self.starts[1:-1])


def read_columns(
    episodes: Sequence[Episode],
    keys: Sequence[str],
    check: Callable[[Episode, str, np.ndarray, np.ndarray], None] = lambda episode, key, exact, values: None,
) -> Columns:
    """Read low-dimensional features whole; ``check`` is given each episode, key, stored array and its float32.

    Raises:
        CorruptionError: stored bytes are damaged.
    """
    parts: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for episode in episodes:
        for key in keys:
            exact = np.asarray(episode[key][:])
            values = exact.astype(np.float32)
            check(episode, key, exact, values)
            parts[key].append(values)
    starts = np.concatenate([[0], np.cumsum([episode.length for episode in episodes])]).astype(np.int64)
    arrays = {key: np.concatenate(values) for key, values in parts.items()}
    return Columns(arrays, tuple(episode.uuid for episode in episodes), starts)


@dataclass(frozen=True)
class Window:
    """One window: its episode, its anchor frame and, for each key, frames (n,) and which of them are padding (n,)."""

    uuid: str
    anchor: int
    frames: Mapping[str, np.ndarray]
    padding: Mapping[str, np.ndarray]


class WindowPlan:
    """All windows of a store, numbered; needs no torch, opens no files.

    Args:
        store: the store.
        deltas: key to time offsets in seconds from the anchor, such as ``{"action": [0, 0.1, 0.2]}``. ``stage`` may
            be asked for like a feature.
        uuids: episodes to use; all by default.
        every: anchors stand this many frames apart.
        tolerance: how far an offset may be from a whole number of frames, in seconds.

    Raises:
        StoreError: unknown key or episode, no episode at all, or an offset that falls between two frames.
    """

    def __init__(
        self,
        store: DemoStore,
        deltas: Mapping[str, Sequence[float]],
        uuids: Sequence[str] | None = None,
        every: int = 1,
        tolerance: float = 1e-4,
    ) -> None:
        self.uuids = list(store.uuids if uuids is None else uuids)
        self.offsets = {key: _frames(key, times, store, tolerance) for key, times in deltas.items()}
        # Keys that share their offsets share their frames: most windows ask for a few patterns only.
        self._patterns: dict[tuple[int, ...], list[str]] = {}
        for key, offsets in self.offsets.items():
            self._patterns.setdefault(tuple(offsets.tolist()), []).append(key)
        if not self.offsets:
            raise StoreError("give the keys and time offsets of a window, for example {'action': [0.0]}")
        if every < 1:
            raise StoreError(f"anchors stand at least one frame apart, got every={every}")
        self._every = every
        lengths = store.lengths
        unknown = [uuid for uuid in self.uuids if uuid not in lengths]
        if unknown or not self.uuids:
            raise StoreError(
                f"{store.path} has no episode {unknown[0]}" if unknown else f"{store.path} has no episodes"
            )
        self._lengths = np.array([lengths[uuid] for uuid in self.uuids])
        self._ends = np.cumsum(-(-self._lengths // every))

    def __len__(self) -> int:
        """Number of windows."""
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Window:
        """The window of a number.

        Raises:
            IndexError: there are not so many.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"window {number} of {len(self)}")
        number %= len(self)
        episode = int(np.searchsorted(self._ends, number, side="right"))
        first = int(self._ends[episode - 1]) if episode else 0
        anchor, last = (number - first) * self._every, int(self._lengths[episode]) - 1
        frames, padding = {}, {}
        for keys in self._patterns.values():
            held, outside = inside(anchor + self.offsets[keys[0]], 0, last)
            for key in keys:
                frames[key], padding[key] = held, outside
        return Window(self.uuids[episode], anchor, frames, padding)

    def windows_of(self, episode: int) -> range:
        """Numbers of the windows of an episode, given by its place in ``uuids``."""
        return range(int(self._ends[episode - 1]) if episode else 0, int(self._ends[episode]))


def read_window(store: DemoStore, window: Window, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a window: (n, ...) for each key, and (n,) bool for each ``<key>_is_pad``.

    Args:
        store: the store that the plan was made for.
        window: one of the plan's windows.
        size: (h, w) that frames are resized to, see ``Episode.frames``.

    Raises:
        CorruptionError: stored bytes are damaged.
    """
    episode = store.episode(window.uuid)
    arrays: dict[str, np.ndarray] = {}
    for key, frames in window.frames.items():
        if key == "stage":
            arrays[key] = episode.stage[frames]
        elif store.schema[key].is_frames:
            if len(set(frames.tolist())) == len(frames):
                arrays[key] = episode.frames(key, frames, size)
            else:  # padding repeats a frame: decode each one once
                unique, places = np.unique(frames, return_inverse=True)
                arrays[key] = episode.frames(key, unique, size)[places]
        else:
            arrays[key] = episode[key][frames]
        arrays[key + PAD_SUFFIX] = window.padding[key].copy()
    return arrays


def read_windows(
    store: DemoStore, windows: Sequence[Window], size: tuple[int, int] | None = None
) -> list[dict[str, np.ndarray]]:
    """``read_window`` of each, shared out over the cores of the main process (see ``robo_core.threads``).

    Raises:
        CorruptionError: stored bytes are damaged.
    """
    found = share(lambda span: [read_window(store, windows[number], size) for number in span], spans(len(windows), 1))
    return [arrays for part in found for arrays in part]


@dataclass(frozen=True)
class _Offer(Generic[Batch]):
    """What the reading thread hands over: a batch, the error that ended it, or neither at the end."""

    batch: Sequence[Batch] = ()
    error: BaseException | None = None


def read_ahead(batches: Iterable[Batch], ahead: int = 2) -> Iterator[Batch]:
    """The same batches, made by a thread of their own while the caller works with earlier ones.

    Around a DataLoader without workers it decodes the next batches during a training step, with nothing copied
    between processes. An error while making a batch is raised where that batch would have come.

    Args:
        batches: what to go through, once.
        ahead: batches made in advance.
    """
    if ahead < 1:
        raise StoreError(f"at least one batch is made in advance, got ahead={ahead}")
    made: Queue[_Offer[Batch]] = Queue(ahead)
    stop = threading.Event()

    def offer(item: _Offer[Batch]) -> bool:
        while not stop.is_set():
            try:
                made.put(item, timeout=_POLL_S)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for batch in batches:
                if not offer(_Offer(batch=[batch])):
                    return
        except BaseException as error:  # noqa: BLE001, raised again by the caller's thread
            offer(_Offer(error=error))
        else:
            offer(_Offer())

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = made.get()
            if item.error is not None:
                raise item.error
            if not item.batch:
                return
            yield from item.batch
    finally:
        stop.set()
        thread.join()


class BlockShuffle:
    """A random order of a plan's windows that works on a few episodes at a time, so that reads stay local.

    Episodes are shuffled and taken in blocks; the windows of a block are shuffled together. The order follows from
    seed and epoch alone, and every window comes once an epoch.

    Args:
        plan: the windows.
        seed: of the order.
        block: episodes taken together; as many as there are gives a plain shuffle.
    """

    def __init__(self, plan: WindowPlan, seed: int = 0, block: int = 64) -> None:
        if block < 1:
            raise StoreError(f"a block holds at least one episode, got block={block}")
        self._plan, self._seed, self._block = plan, seed, block
        self.epoch = 0

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._plan)

    def __iter__(self) -> Iterator[int]:
        """Window numbers of this epoch; set ``epoch`` before each one."""
        rng = np.random.default_rng([self._seed, self.epoch])
        order = rng.permutation(len(self._plan.uuids))
        for start in range(0, len(order), self._block):
            numbers = np.concatenate([self._plan.windows_of(int(e)) for e in order[start : start + self._block]])
            yield from rng.permutation(numbers).tolist()


def _frames(key: str, times: Sequence[float], store: DemoStore, tolerance: float) -> np.ndarray:
    if key != "stage" and key not in store.schema:
        raise StoreError(f"{store.path} has no feature {key!r}; it has {list(store.schema)} and stage")
    seconds = np.asarray(times, np.float64).reshape(-1)
    frames = np.round(seconds * store.fps)
    off = np.abs(frames / store.fps - seconds)
    if not len(seconds) or not np.isfinite(seconds).all() or off.max() > tolerance:
        raise StoreError(
            f"the time offsets {list(times)} of {key} are not whole frames at {store.fps:g} frames/s "
            f"(tolerance {tolerance:g} s)"
        )
    return frames.astype(np.int64)
