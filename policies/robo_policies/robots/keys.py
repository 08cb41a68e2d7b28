"""Keys of the terminal, one at a time and unechoed: how a person arms, stops and marks the outcome."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable
from types import TracebackType

from robo_policies.robots.arm import ArmError

KEYS = {
    "a": "arm: hold where the arm is; the policy's next chunk starts the motion",
    "h": "hold only: arm without the policy",
    " ": "emergency stop (space, or e): brake and latch a fault",
    "d": "disarm: brake, then command nothing",
    "r": "reset a fault, after its cause is gone",
    "s": "the episode succeeded: disarm and keep it so",
    "f": "the episode failed: disarm and keep it so",
    "x": "discard the episode: disarm and forget it",
    "q": "quit: brake, disarm, disconnect (Ctrl-C does the same)",
    "?": "these keys",
}


class Terminal:
    """The terminal in single-key mode, as a context; calls ``pressed`` with every key, ``gone`` when it goes away.

    Raises:
        ArmError: standard input is not a terminal.
    """

    def __init__(self, pressed: Callable[[str], None], gone: Callable[[], None]) -> None:
        if not os.isatty(sys.stdin.fileno()):
            raise ArmError(
                "standard input is not a terminal: the arm is armed and stopped by hand, with the keys a and space. "
                "Start the command in a terminal (ssh -t HOST robo-rm run-policy ..., docker run -it ...)"
            )
        self._pressed, self._gone = pressed, gone
        self._closing = threading.Event()
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Terminal:
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin.fileno())
        self._thread = threading.Thread(target=self._listen, name="keys", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join(1.0)
        if self._before is not None:
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def _listen(self) -> None:
        descriptor = sys.stdin.fileno()
        while not self._closing.is_set():
            try:
                ready, _, _ = select.select([descriptor], [], [], 0.1)
                if not ready:
                    continue
                data = os.read(descriptor, 64)
            except OSError:
                data = b""
            if not data:
                self._gone()
                return
            for key in data.decode("utf-8", "ignore"):
                self._pressed(key)
