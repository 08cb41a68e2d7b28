"""A bridge that goes on asking for chunks while something else happens, and other users' processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

import numpy as np

from robo_hw import RobotContract
from robo_hw.transport import ClientState, PolicyClient, Timeouts

ARM = RobotContract.load("tidy_drawer")
REST = np.array([0.0, 0.0, 0.0, 0.0, 1.57, 0.0, 0.5])
QUICK = Timeouts(retry=0.02, retry_refused=0.05, heartbeat=0.1, silence=2.5, handshake=5.0)
NOBODY = 65534


def until(condition: Callable[[], object], seconds: float = 20.0, what: object = "") -> object:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited too long {what() if callable(what) else what}"
        time.sleep(0.002)
    return found


def connected(client: PolicyClient) -> None:
    until(lambda: client.status().state is ClientState.CONNECTED, what=lambda: client.status().message)


def refused(client: PolicyClient) -> str:
    """Wait until the client is refused, and return why."""
    until(lambda: client.status().state is ClientState.REFUSED, what=lambda: client.status().message)
    return client.status().message


def pictures() -> dict[str, np.ndarray]:
    return {camera.name: np.full((camera.height, camera.width, 3), 7, np.uint8) for camera in ARM.cameras}


class InUse:
    """Asks for a chunk 20 times a second; ``gaps`` has the seconds between two that came."""

    def __init__(self, client: PolicyClient) -> None:
        self.client = client
        self.gaps: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="in-use", daemon=True)

    def __enter__(self) -> InUse:
        connected(self.client)
        self._thread.start()
        until(lambda: len(self.gaps) >= 3, what=lambda: self.client.status().message)
        self.gaps.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        last, images = time.monotonic(), pictures()
        while not self._stop.wait(0.05):
            now = time.monotonic()
            self.client.send_observation(ARM.joint_names, REST, images, observed_at=now, want=("chunk",))
            if self.client.poll().chunk is not None:
                self.gaps.append(now - last)
                last = now


class AsNobody:
    """A child process of another user that runs ``action``; needs root. ``said`` is what it returned."""

    def __init__(self, action: Callable[[], str], stays: bool = False) -> None:
        self._stays = stays
        read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(read)
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                text = action()
            except BaseException:  # noqa: BLE001 - the parent is told
                text = traceback.format_exc()
            os.write(write, text.encode()[:4000])
            os.close(write)
            if stays:
                signal.pause()
            os._exit(0)
        os.close(write)
        with open(read) as file:
            self.said = file.read()

    def __enter__(self) -> AsNobody:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stays:
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
