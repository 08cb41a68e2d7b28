"""Feetech servos behind a pseudo-terminal: LeRobot's own driver of the SO-101 talks to them as to real ones.

Protocol 0 of the STS series: FF FF id length instruction parameters checksum, little-endian; the addresses are those of
the servo's manual. A servo goes towards its goal at a limited speed while its torque is on.
"""

from __future__ import annotations

import os
import pty
import select
import threading
import time
import tty

PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x82, 0x83
MODEL, MIN_LIMIT, MAX_LIMIT, OFFSET, TORQUE, GOAL, PRESENT = 3, 9, 11, 31, 40, 42, 56
STS3215 = 777
SPEED = 4000.0
"""Encoder steps per second."""


class Servo:
    def __init__(self, number: int, position: int, limits: tuple[int, int], offset: int) -> None:
        self.memory = bytearray(128)
        self.position, self._at = float(position), time.monotonic()
        self.write(0, bytes([3, 10]))
        self.write(MODEL, STS3215.to_bytes(2, "little"))
        self.write(5, bytes([number]))
        self.write(MIN_LIMIT, limits[0].to_bytes(2, "little"))
        self.write(MAX_LIMIT, limits[1].to_bytes(2, "little"))
        # Sign and magnitude, the sign in bit 11.
        self.write(OFFSET, (abs(offset) | (0x800 if offset < 0 else 0)).to_bytes(2, "little"))
        self.write(GOAL, position.to_bytes(2, "little"))

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory[address : address + 2], "little")

    def write(self, address: int, data: bytes) -> None:
        self.memory[address : address + len(data)] = data

    def read(self, address: int, length: int) -> bytes:
        now = time.monotonic()
        room, self._at = SPEED * (now - self._at), now
        if self.memory[TORQUE]:
            self.position += min(max(self.word(GOAL) - self.position, -room), room)
        self.write(PRESENT, round(self.position).to_bytes(2, "little"))
        return bytes(self.memory[address : address + length])


class ServoBus:
    """Servos 1 to n on one line, as a context; ``port`` is what the driver opens."""

    def __init__(self, servos: list[Servo]) -> None:
        self.servos = {i + 1: servo for i, servo in enumerate(servos)}
        self.silent = False
        """Nothing is answered any more: the line was pulled."""
        self.overlaps = 0
        """Requests that came in pieces of two at once: two threads wrote at the same time."""
        self._master, self._slave = pty.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ServoBus:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(2.0)
        os.close(self._master)
        os.close(self._slave)

    def _serve(self) -> None:
        data = b""
        while not self._closing.is_set():
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            data += os.read(self._master, 4096)
            while (start := data.find(b"\xff\xff")) >= 0 and len(data) >= start + 4:
                self.overlaps += start > 0
                length = data[start + 3]
                if len(data) < start + 4 + length:
                    break
                packet, data = data[start : start + 4 + length], data[start + 4 + length :]
                if (~sum(packet[2:-1])) & 0xFF == packet[-1] and not self.silent:
                    self._answer(packet[2], packet[4], packet[5:-1])
                elif not self.silent:
                    self.overlaps += 1

    def _answer(self, number: int, instruction: int, parameters: bytes) -> None:
        if instruction == SYNC_READ:
            for servo in parameters[2:]:
                self._reply(servo, self.servos[servo].read(parameters[0], parameters[1]))
        elif instruction == SYNC_WRITE:
            address, length, rest = parameters[0], parameters[1], parameters[2:]
            for i in range(0, len(rest), length + 1):
                self.servos[rest[i]].read(PRESENT, 2)  # how far it came until now
                self.servos[rest[i]].write(address, rest[i + 1 : i + 1 + length])
        elif number in self.servos:
            servo = self.servos[number]
            if instruction == WRITE:
                servo.read(PRESENT, 2)
                servo.write(parameters[0], parameters[1:])
            answer = servo.read(parameters[0], parameters[1]) if instruction == READ else b""
            self._reply(number, answer)

    def _reply(self, number: int, data: bytes) -> None:
        body = bytes([number, len(data) + 2, 0]) + data
        os.write(self._master, b"\xff\xff" + body + bytes([(~sum(body)) & 0xFF]))
