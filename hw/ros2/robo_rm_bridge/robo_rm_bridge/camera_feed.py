"""The cameras of a contract, received by a process of their own (`camera_process`); never waits for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import FrameError, HandshakeError
from robo_hw.transport.images import SlotReader
from robo_rm_bridge.camera_process import ALIVE, NOTE, PROBLEM, layout_of, slots_of

_RESTART_AFTER = 1.0
_SILENT_FOR = 8.0
"""Seconds without a note after which the process counts as hung: it says every second that it is at work."""
_START_FOR = 60.0
"""Seconds that it may take to start on a computer that is busy."""
_NOTE_BYTES = 2048
_MOST_NOTES = 256


@dataclass(frozen=True)
class NewImage:
    """An image has come. ``stamp``: s by the sender's clock, None where it has none; ``read`` gives a copy (H, W, 3)
    uint8, or None where it has been overwritten."""

    camera: str
    digest: int
    stamp: float | None
    read: Callable[[], np.ndarray | None]


@dataclass(frozen=True)
class CameraProblem:
    """A camera's message could not be used, or the process of the cameras ended (``camera`` is empty then)."""

    camera: str
    message: str


class CameraFeed:
    """Starts the process, starts it again where it ends, and hands out what it notes.

    Args:
        contract: names, sizes and topics of the cameras.
        topics: the cameras' topics after remapping, in the contract's order.
        node: the name that its node has in the graph.
        namespace: of that node.
    """

    def __init__(self, contract: RobotContract, topics: list[str], node: str, namespace: str) -> None:
        self._contract, self._topics = contract, topics
        self._node, self._namespace = node, namespace
        self._layouts = [layout_of(contract, index) for index in range(len(contract.cameras))]
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._readers: list[SlotReader] = []
        self._started = -float("inf")
        self._patient_until = float("inf")
        self.restarts = 0
        """How often the process ended and was started again."""
        self._start()

    def poll(self) -> list[NewImage | CameraProblem]:
        """What has come since the last call; returns at once."""
        if not self._contract.cameras:
            return []
        if self._process is None or self._process.poll() is not None or self._socket is None:
            return self._restart("ended")
        if time.monotonic() > self._patient_until:
            return self._restart("hangs")
        found: list[NewImage | CameraProblem] = []
        for _ in range(_MOST_NOTES):
            try:
                if not self._readers:
                    self._take_memory(self._socket)
                    continue
                note = self._socket.recv(_NOTE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except (OSError, HandshakeError):
                note = b""
            if len(note) < NOTE.size:
                self._forget()
                break
            self._patient_until = time.monotonic() + _SILENT_FOR
            if note[1] != ALIVE:
                found.append(self._read(note))
        return found

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._forget()
        if process is not None:
            process.kill()
            process.wait()

    def _read(self, note: bytes) -> NewImage | CameraProblem:
        index, problem, slot, generation, digest, sec, nanosec = NOTE.unpack_from(note)
        name = self._contract.cameras[index].name
        if problem == PROBLEM:
            return CameraProblem(name, note[NOTE.size :].decode(errors="replace"))
        stamp = sec + nanosec * 1e-9 if sec or nanosec else None
        return NewImage(name, digest, stamp, partial(_copy, self._readers[index], slot, generation, name))

    def _start(self) -> None:
        if not self._contract.cameras:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        spec = {
            "contract": self._contract.to_dict(),
            "topics": self._topics,
            "node": self._node,
            "namespace": self._namespace,
            "socket": theirs.fileno(),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robo_rm_bridge.camera_process", json.dumps(spec)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # The same modules, however this process came by them.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._socket = ours
        self._started = time.monotonic()
        self._patient_until = self._started + _START_FOR

    def _restart(self, why: str) -> list[NewImage | CameraProblem]:
        if time.monotonic() - self._started < _RESTART_AFTER:
            return []
        code = None if self._process is None else self._process.poll()
        self.close()
        self.restarts += 1
        self._start()
        reason = why if code is None else f"{why} (code {code})"
        return [CameraProblem("", f"the process that receives images {reason}; it was started again")]

    def _take_memory(self, connection: socket.socket) -> None:
        count = len(self._contract.cameras)
        message, descriptors, _, _ = socket.recv_fds(connection, 16, count, socket.MSG_DONTWAIT)
        try:
            if not message or len(descriptors) != count:
                raise HandshakeError("memory", "the process of the cameras ended before it was ready")
            self._readers = [
                SlotReader(layout, slots_of(layout), descriptor)
                for layout, descriptor in zip(self._layouts, descriptors, strict=True)
            ]
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _forget(self) -> None:
        # The readers' memory goes with the last image that refers to it.
        self._readers = []
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _copy(reader: SlotReader, slot: int, generation: int, camera: str) -> np.ndarray | None:
    try:
        return reader.read(slot, generation, (camera,))[camera]
    except FrameError:
        return None
