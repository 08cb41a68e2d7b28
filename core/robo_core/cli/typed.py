"""The command line as the user typed it, for what a command writes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_words: ContextVar[tuple[str, ...]] = ContextVar("robo_rm_words", default=())


@contextmanager
def typed(words: Sequence[str]) -> Iterator[None]:
    """Have `command_line` give these words inside; a command may run another."""
    token = _words.set(tuple(words))
    try:
        yield
    finally:
        _words.reset(token)


def command_line() -> str:
    """``robo-rm COMMAND ...``, quoted for a shell; empty where the code was called as a library."""
    words = _words.get()
    return shlex.join(["robo-rm", *words]) if words else ""
