"""Images are received, checked and decoded in a process of their own: `python -m robo_rm_bridge.camera_process`.

Whatever comes on a camera's topic, neither its bytes nor the interpreter's lock nor the memory it takes is the control
loop's. Decoded images go through shared memory (`robo_hw.transport.images`), a short note of each through a socket.

    note: camera (B), kind (B), slot (H), generation (Q), digest (Q), stamp (i, I), text
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from typing import TypedDict

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import HardwareError
from robo_hw.safety.watch import frame_digest
from robo_hw.transport.images import ImageLayout, SlotWriter
from robo_rm_bridge.errors import MessageError
from robo_rm_bridge.images import decode, is_compressed


class Specification(TypedDict):
    """What the process is started with, as JSON."""

    contract: dict[str, object]
    topics: list[str]
    node: str
    namespace: str
    socket: int
    """Descriptor of the socket that the notes go to."""


NOTE = struct.Struct("<BBHQQiI")
IMAGE, PROBLEM, ALIVE = range(3)
"""Kinds of notes."""
ALIVE_EVERY = 1.0
"""Seconds between two notes that say only that the process is at work."""
_LARGE = 4 << 20
_REPORT_EVERY = 1.0
"""Seconds between two notes of a camera's problems."""


def layout_of(contract: RobotContract, index: int) -> ImageLayout:
    """The memory layout of one camera's images."""
    return ImageLayout(dataclasses.replace(contract, cameras=(contract.cameras[index],)))


def slots_of(layout: ImageLayout) -> int:
    """How many images of a camera are kept: enough that the newest is not overwritten while it is read."""
    return 4 if layout.pixels > _LARGE else 8


class CameraReceiver:
    """One camera: checks and decodes messages, writes images into shared memory, and notes each on the socket."""

    def __init__(self, contract: RobotContract, index: int, topic: str, notes: socket.socket) -> None:
        self._camera = contract.cameras[index]
        self._index, self._notes = index, notes
        self._compressed = is_compressed(topic)
        layout = layout_of(contract, index)
        self.writer = SlotWriter(layout, slots_of(layout))
        self._slot = 0
        self._reported_at = -float("inf")

    def receive(self, message: bytes) -> None:
        """Take one serialized message."""
        camera = self._camera
        try:
            rgb, stamp = decode(message, self._compressed, camera.width, camera.height)
        except MessageError as error:
            if time.monotonic() - self._reported_at >= _REPORT_EVERY:
                self._reported_at = time.monotonic()
                _send(self._notes, NOTE.pack(self._index, PROBLEM, 0, 0, 0, 0, 0) + str(error).encode())
            return
        self._slot = (self._slot + 1) % self.writer.slots
        generation = self.writer.write(self._slot, {camera.name: rgb})
        _send(self._notes, NOTE.pack(self._index, IMAGE, self._slot, generation, frame_digest(rgb), *stamp))


def _send(notes: socket.socket, note: bytes) -> None:
    # Where nobody reads, what does not fit is dropped.
    with contextlib.suppress(BlockingIOError):
        notes.send(note, socket.MSG_DONTWAIT)


def main() -> None:
    """Serve the process that started this one until it ends; its specification comes as JSON on the command line."""
    spec: Specification = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started us ends us
    _give_way()
    notes = socket.socket(fileno=spec["socket"])
    _end_with(notes)
    try:
        _serve(spec, notes)
    except HardwareError as error:
        print(f"cameras: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)


def _serve(spec: Specification, notes: socket.socket) -> None:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from robo_rm_bridge.conversions import sensor_qos
    from robo_rm_bridge.images import image_type
    from robo_rm_bridge.nodes import helper_node

    contract = RobotContract.from_dict(spec["contract"])
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = helper_node(spec["node"], spec["namespace"])
    receivers = []
    for index, topic in enumerate(spec["topics"]):
        receiver = CameraReceiver(contract, index, topic, notes)
        receivers.append(receiver)
        node.create_subscription(image_type(topic), topic, receiver.receive, sensor_qos(), raw=True)
    socket.send_fds(notes, [b"memory"], [receiver.writer.descriptor for receiver in receivers])
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    reported_at = -float("inf")
    while True:
        if time.monotonic() - reported_at >= ALIVE_EVERY:
            reported_at = time.monotonic()
            _send(notes, NOTE.pack(0, ALIVE, 0, 0, 0, 0, 0))
        executor.spin_once(timeout_sec=ALIVE_EVERY)


def _give_way() -> None:
    """The control loop comes first, also where it was given a real-time priority that we inherited."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.nice(5)


def _end_with(notes: socket.socket) -> None:
    """End as soon as the other side of the socket is closed, however its process ended."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            notes.recv(1)
        os._exit(0)

    threading.Thread(target=wait, name="end", daemon=True).start()


if __name__ == "__main__":
    main()
