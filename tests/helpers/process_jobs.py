"""What test_processes.py does in worker processes, which can only import it from a module."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robo_core.errors import StoreError


@contextmanager
def folder_state(folder: Path) -> Iterator[Path]:
    """A state that leaves a file when it is opened, and another when it is closed."""
    (folder / f"opened-{os.getpid()}").touch()
    yield folder
    (folder / f"closed-{os.getpid()}").touch()


def square(state: object, item: int) -> int:
    return item * item


def reversed_delay(state: object, item: int) -> int:
    time.sleep(0.05 * (4 - item % 4))
    return item


def describe(state: object, item: int) -> tuple[int, str | None, bool]:
    print("a library prints")
    return os.getpid(), os.environ.get("OMP_NUM_THREADS"), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def fail_at_two(folder: Path, item: int) -> int:
    (folder / f"began-{item}").touch()
    if item == 2:
        raise StoreError("item 2 is bad")
    time.sleep(0.1)
    return item


def crash(state: object, item: int) -> int:
    print("the driver gave up", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def hold(folder: Path, item: int) -> int:
    """Work for a minute, and say how it ended."""
    (folder / f"pid-{os.getpid()}").touch()
    try:
        time.sleep(60)
    finally:
        (folder / f"unwound-{item}").touch()
    return item


def first_then_hold(folder: Path, item: int) -> int:
    if item:
        return hold(folder, item)
    while not list(folder.glob("pid-*")):
        time.sleep(0.01)
    return item
