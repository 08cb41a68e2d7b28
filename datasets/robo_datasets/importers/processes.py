"""Processes that read episodes: started from a helper that has the libraries at hand, and kept from wasting memory.

A new Python process spends about a third of a second on loading numpy, PyAV, OpenCV and Arrow. A command therefore
starts a helper at once, which loads them while the command itself is still reading its settings and the source; every
worker is then a copy of it. Programs that call ``import_source`` get plain new processes, and no helper that stays.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import threading
from multiprocessing import connection, forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

from robo_core.checksummed import keep_sync_threads
from robo_datasets.store.layout import GROUP_FILE

# What every importer loads.
_COMMON = ("robo_datasets.importers.workers", "pyarrow.parquet")
# glibc's mallopt: memory that is kept when it is freed, and the size from which on a block is mapped by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BLOCK = 64 << 20, 32 << 20

_helped = False


def start_helper(workers: int | None, store: str, *modules: str) -> None:
    """Start loading what workers need, where a command will want any; returns at once.

    Args:
        workers: the command's setting.
        store: where it imports to. Where that is there already, often nothing is left to import: no helper is started.
        modules: those of the importer in ``robo_datasets.importers``, beside what all of them load.
    """
    global _helped
    count = (os.cpu_count() or 1) if workers is None else workers
    if count < 2 or "forkserver" not in multiprocessing.get_all_start_methods() or (Path(store) / GROUP_FILE).exists():
        return
    forkserver.set_forkserver_preload([*_COMMON, *(f"robo_datasets.importers.{name}" for name in modules)])
    try:
        forkserver.ensure_running()
    except OSError:
        return  # no process or socket to be had: the workers will say so
    _helped = True


def worker_context() -> BaseContext:
    """How worker processes are started."""
    return multiprocessing.get_context("forkserver" if _helped else "spawn")


def settle_worker() -> None:
    """Make this process a worker: it ends with its parent, and does not spend its time on managing memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    gc.freeze()  # what is loaded by now stays: the collector need not go through it again and again
    _keep_memory()
    keep_sync_threads()


def _end_with(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever, and hold the episode that it is at."""
    connection.wait([parent])
    os._exit(1)


def _keep_memory() -> None:
    """Keep freed pictures for the next ones.

    glibc gives them back to the kernel, which clears the pages and hands them out again, frame by frame: a tenth of the
    time of an import.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
