"""Images between two processes without copying them through the socket: a ring of slots in memory without a name.

The client makes the memory (``memfd``), seals its size, and hands it to the server through the socket. It has no name
in any folder, so when both processes are gone, however they died, the system has freed it: nothing is left to clean up.

A slot is a generation, the images of all cameras in the order of their names, and the generation again. The client
writes a slot only while the server has nothing to read in it (``taken`` gives it back); the generations catch a client
that does not keep to that.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Mapping

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import FrameError, HandshakeError, ObservationError

_GENERATION = struct.Struct("<Q")
_SEALS = ("F_SEAL_SHRINK", "F_SEAL_GROW")
SLOTS = 4
"""Observations that may be under way at once."""


class ImageLayout:
    """Where each camera's (H, W, 3) uint8 image lies in a slot, as a contract fixes it."""

    def __init__(self, contract: RobotContract) -> None:
        # By name: two contracts that a policy fits both may list their cameras in another order.
        cameras = sorted(contract.cameras, key=lambda camera: camera.name)
        self.shapes = {camera.name: (camera.height, camera.width, 3) for camera in cameras}
        self.offsets: dict[str, int] = {}
        place = _GENERATION.size
        for name, (height, width, _) in self.shapes.items():
            self.offsets[name] = place
            place += height * width * 3
        self.pixels = place - _GENERATION.size
        """Bytes of all cameras' images."""
        # Slots begin on an address that is a multiple of 64.
        self.slot_bytes = (place + _GENERATION.size + 63) // 64 * 64

    def checked(self, images: Mapping[str, object]) -> dict[str, np.ndarray]:
        """The images, in the order of the cameras' names, as contiguous uint8.

        Raises:
            ObservationError: a camera is unknown, or an image is not (H, W, 3) uint8 of the contract's size.
        """
        for name in images:
            if name not in self.shapes:
                known = ", ".join(self.shapes) or "none"
                raise ObservationError(f"camera {name!r} is not in the contract; it has {known}")
        checked = {}
        for name, shape in self.shapes.items():
            if name not in images:
                continue
            image = np.asarray(images[name])
            if image.dtype != np.uint8 or image.shape != shape:
                raise ObservationError(
                    f"camera {name}: an image of {image.shape} {image.dtype} came, the contract says {shape} uint8 RGB"
                )
            checked[name] = image
        return checked

    def join(self, images: Mapping[str, np.ndarray]) -> bytes:
        """The images one after the other, for a frame."""
        return b"".join(np.ascontiguousarray(images[name]).tobytes() for name in images)

    def split(self, cameras: tuple[str, ...], pixels: bytes) -> dict[str, np.ndarray]:
        """The reverse of ``join``.

        Raises:
            FrameError: cameras are unknown or repeated, or the bytes are not theirs.
        """
        self._check(cameras)
        sizes = [int(np.prod(self.shapes[name])) for name in cameras]
        if sum(sizes) != len(pixels):
            raise FrameError(f"observation.pixels: {len(pixels)} bytes for the {sum(sizes)} of {', '.join(cameras)}")
        images, place = {}, 0
        for name, size in zip(cameras, sizes, strict=True):
            images[name] = np.frombuffer(pixels, np.uint8, size, place).reshape(self.shapes[name])
            place += size
        return images

    def _check(self, cameras: tuple[str, ...]) -> None:
        for name in cameras:
            if name not in self.shapes:
                raise FrameError(f"observation.cameras: {name[:40]!r} is not in the contract")
        if len(set(cameras)) != len(cameras):
            raise FrameError("observation.cameras: a camera comes twice")


class SlotWriter:
    """The client's side: makes the memory and writes images into it."""

    def __init__(self, layout: ImageLayout, slots: int = SLOTS) -> None:
        self.layout, self.slots = layout, slots
        self._generation = 0
        size = layout.slot_bytes * slots
        self.descriptor = os.memfd_create("robo-rm-images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            # Without the seals the reader would have to fear that the memory goes away under it.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            self._memory = mmap.mmap(self.descriptor, size)
        except OSError:
            os.close(self.descriptor)
            raise

    @staticmethod
    def possible() -> bool:
        """Whether this system has memory without a name (Linux)."""
        return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")

    def write(self, slot: int, images: Mapping[str, np.ndarray]) -> int:
        """Write images into a slot; returns its new generation."""
        self._generation += 1
        mark = _GENERATION.pack(self._generation)
        base, layout = slot * self.layout.slot_bytes, self.layout
        self._memory[base : base + _GENERATION.size] = mark
        for name, image in images.items():
            place = base + layout.offsets[name]
            target = np.frombuffer(self._memory, np.uint8, image.size, place).reshape(image.shape)
            np.copyto(target, image)
            del target  # it would keep the memory from being closed
        end = base + _GENERATION.size + layout.pixels
        self._memory[end : end + _GENERATION.size] = mark
        return self._generation

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self.descriptor)


class SlotReader:
    """The server's side: maps the memory read-only and copies images out of it."""

    def __init__(self, layout: ImageLayout, slots: int, descriptor: int) -> None:
        """Map the memory behind ``descriptor``, which stays the caller's to close.

        Raises:
            HandshakeError: it is not sealed memory of the size that the contract asks for.
        """
        self.layout, self.slots = layout, slots
        size = layout.slot_bytes * slots
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            found = os.fstat(descriptor)
        except OSError as error:
            raise HandshakeError("shared", f"what came is not shared memory ({error.strerror})") from None
        sealed = all(seals & getattr(fcntl, name) for name in _SEALS)
        if not stat.S_ISREG(found.st_mode) or not sealed or found.st_size != size:
            raise HandshakeError(
                "shared", f"shared memory of {found.st_size} bytes, sealed: {sealed}; {size} are needed"
            )
        self._memory = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)

    def read(self, slot: int, generation: int, cameras: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Copies of the images in a slot.

        Raises:
            FrameError: there is no such slot or camera, or the slot holds another generation, before or after.
        """
        if slot >= self.slots:
            raise FrameError(f"observation.slot: {slot} of {self.slots}")
        self.layout._check(cameras)
        base = slot * self.layout.slot_bytes
        images = {}
        for name in cameras:
            shape = self.layout.shapes[name]
            image = np.empty(shape, np.uint8)
            place = base + self.layout.offsets[name]
            source = np.frombuffer(self._memory, np.uint8, image.size, place)
            np.copyto(image.reshape(-1), source)
            del source
            images[name] = image
        for place in (base, base + _GENERATION.size + self.layout.pixels):
            (found,) = _GENERATION.unpack_from(self._memory, place)
            if found != generation:
                raise FrameError(f"observation.generation: slot {slot} holds {found}, not {generation}")
        return images

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
