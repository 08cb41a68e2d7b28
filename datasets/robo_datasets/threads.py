"""A small pool of threads for decoding: OpenCV, numpy and zstd let go of the interpreter while they work.

Only the main process of a program uses it. Worker processes of a DataLoader or of an import share the cores already,
one process each, and decode on their own.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Part = TypeVar("Part")

_state = threading.local()
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_process = 0
_wanted: int | None = None


def set_decode_threads(count: int | None) -> None:
    """Decode with ``count`` threads in this process: 1 for none besides the caller, None for one a core."""
    global _pool, _wanted
    if count is not None and count < 1:
        raise ValueError(f"frames are decoded by at least one thread, got {count}")
    with _lock:
        if _pool is not None and _pool_process == os.getpid():
            _pool.shutdown(wait=True)
        _pool, _wanted = None, count


def decode_threads() -> int:
    """Threads that share the decoding of one read, called from here."""
    if getattr(_state, "inside", False):
        return 1  # one of the pool's own threads
    if _wanted is not None:
        return _wanted
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(work: Callable[[Part], Any], parts: Sequence[Part]) -> list[Any]:
    """``[work(part) for part in parts]``, the parts on the pool's threads and the first one on the caller's.

    Raises:
        Whatever ``work`` raises, for the first part that does; all parts have ended by then.
    """
    if len(parts) < 2 or decode_threads() < 2:
        return [work(part) for part in parts]
    futures = [_threads().submit(work, part) for part in parts[1:]]
    try:
        first = work(parts[0])
    finally:
        for future in futures:
            future.exception()  # waits
    return [first, *(future.result() for future in futures)]


def spans(count: int, least: int) -> list[range]:
    """Cut ``count`` items into as many runs of neighbours as there are threads, none shorter than ``least``."""
    pieces = max(1, min(decode_threads(), count // least))
    return [range(count * piece // pieces, count * (piece + 1) // pieces) for piece in range(pieces)]


def _threads() -> ThreadPoolExecutor:
    global _pool, _pool_process
    with _lock:
        if _pool is None or _pool_process != os.getpid():  # threads do not survive a fork
            _pool = ThreadPoolExecutor(decode_threads(), "decode", initializer=_mark)
            _pool_process = os.getpid()
        return _pool


def _mark() -> None:
    _state.inside = True
