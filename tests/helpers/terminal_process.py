"""A command of robo-rm in a terminal of its own: keys go in, lines come out, as for a person."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path


class TerminalProcess:
    """``robo-rm WORDS`` with a pseudo-terminal for its input and output."""

    def __init__(self, *words: str, environment: dict[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        executable = str(Path(sys.executable).parent / "robo-rm")
        self.process = subprocess.Popen(
            [executable, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | (environment or {}),
        )
        os.close(slave)
        self._text = ""
        self._hung_up = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> TerminalProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    @property
    def text(self) -> str:
        """Everything it has shown."""
        return self._text.replace("\r", "")

    def press(self, keys: str) -> None:
        """Type keys."""
        os.write(self._master, keys.encode())

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(signal.Signals(number))

    def hang_up(self) -> None:
        """Take the terminal away."""
        self._hung_up.set()
        self._thread.join(5.0)

    def wait_for(self, text: str, seconds: float = 90.0, after: int = 0) -> int:
        """Wait until ``text`` is shown beyond place ``after``; returns where it ends."""
        end = time.monotonic() + seconds
        while (found := self.text.find(text, after)) < 0:
            assert time.monotonic() < end, f"{text!r} was not shown in {seconds} s:\n{self.text}"
            assert self.process.poll() is None or self.text.find(text, after) >= 0, f"it ended:\n{self.text}"
            time.sleep(0.02)
        return found + len(text)

    def finish(self, seconds: float = 30.0) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(seconds)
        self._thread.join(2.0)
        return code

    def _read(self) -> None:
        while not self._hung_up.is_set():
            try:
                if not select.select([self._master], [], [], 0.1)[0]:
                    continue
                data = os.read(self._master, 4096)
            except OSError:
                return
            if not data:
                return
            self._text += data.decode("utf-8", "replace")
        os.close(self._master)


def _take_terminal() -> None:
    """Make the standard input the controlling terminal, so that Ctrl-C and hanging up reach the process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
