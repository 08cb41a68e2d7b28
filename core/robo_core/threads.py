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
from typing import TypeVar, cast

Part = TypeVar("Part")
Result = TypeVar("Result")

_state = threading.local()
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_process = 0
_wanted: int | None = None


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    return available_cores()


def share(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """``[work(part) for part in parts]``, the parts taken in turn by the caller and the pool's threads.

    A thread that does not get a core in time costs nothing: the caller goes on with what is left.

    Raises:
        Whatever ``work`` raises, for the first part that does; all work has ended by then.
    """
    helpers = min(decode_threads(), len(parts)) - 1
    if helpers < 1:
        return [work(part) for part in parts]
    results: list[Result | None] = [None] * len(parts)
    errors: dict[int, BaseException] = {}
    left = iter(range(len(parts)))  # advancing it is one step of the interpreter: no two threads get the same number

    def take() -> None:
        for number in left:
            try:
                results[number] = work(parts[number])
            except BaseException as error:  # noqa: BLE001, raised again by the caller
                errors[number] = error
                return

    futures = [_threads().submit(take) for _ in range(helpers)]
    take()
    for future in futures:
        if not future.cancel():  # it began: wait for the part that it is at
            future.result()
    if errors:
        raise errors[min(errors)]
    return cast(list[Result], results)


def spans(count: int, least: int) -> list[range]:
    """Cut ``count`` items into runs of ``least`` neighbours (a last one may be shorter); one run without helpers."""
    if decode_threads() < 2:
        return [range(count)]
    return [range(start, min(start + least, count)) for start in range(0, count, least)]


def _threads() -> ThreadPoolExecutor:
    global _pool, _pool_process
    with _lock:
        if _pool is None or _pool_process != os.getpid():  # threads do not survive a fork
            _pool = ThreadPoolExecutor(decode_threads(), "decode", initializer=_mark)
            _pool_process = os.getpid()
        return _pool


def _mark() -> None:
    _state.inside = True
