"""The newest of every input that a policy may need, with its age; nothing is ever filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robo_hw.contract import RobotContract
from robo_hw.errors import HardwareError
from robo_hw.watch import StreamWatch

STATE = "observation.state"
IMAGES = "observation.images."


@dataclass(frozen=True)
class Snapshot:
    """One observation: what the arm, the cameras and the further inputs showed last.

    ``observed_at``: steady-clock time of the joint state, s.
    """

    names: tuple[str, ...]
    positions: np.ndarray
    images: Mapping[str, np.ndarray]
    arrays: Mapping[str, np.ndarray]
    observed_at: float


@dataclass(frozen=True)
class NamedVector:
    """A further input: a feature's key and the topic (sensor_msgs/JointState: names and positions) it comes on."""

    key: str
    topic: str


def parse_vectors(entries: list[str]) -> list[NamedVector]:
    """Entries of the form ``observation.environment_state=/environment_state``.

    Raises:
        HardwareError: an entry has another form.
    """
    vectors = []
    for entry in entries:
        key, equals, topic = (part.strip() for part in entry.partition("="))
        if not equals or not key.startswith("observation.") or not topic or key == STATE or key.startswith(IMAGES):
            raise HardwareError(
                f"parameter vectors: {entry!r} is not of the form observation.NAME=/topic"
                " (state and images come from the contract's topics)"
            )
        vectors.append(NamedVector(key, topic))
    return vectors


class Sights:
    """What has been seen last, and whether it is fresh enough to act on.

    ``vector_age``: s that a further input may be old; joint states and cameras have the contract's deadlines.
    """

    def __init__(self, contract: RobotContract, vectors: list[NamedVector], vector_age: float) -> None:
        self._contract = contract
        self._vector_age = vector_age
        self._names: tuple[str, ...] = ()
        self._positions: np.ndarray | None = None
        self._state_at = -np.inf
        self._images: dict[str, tuple[np.ndarray, float]] = {}
        self._vectors: dict[str, np.ndarray] = {}
        self.vector_names: dict[str, tuple[str, ...]] = {}
        """Names of the numbers of each further input, once it has come."""
        self._watches = {vector.key: StreamWatch(vector.key, vector_age / 2) for vector in vectors}

    def joints(self, names: list[str], positions: np.ndarray, now: float) -> None:
        """A joint state that the core took for sound."""
        self._names, self._positions, self._state_at = tuple(names), positions, now

    def image(self, camera: str, rgb: np.ndarray, now: float) -> None:
        """A picture (H, W, 3) that the core took for fresh."""
        self._images[camera] = (rgb, now)

    def vector(self, key: str, names: list[str], values: np.ndarray, now: float, stamp: float | None) -> str | None:
        """A further input; returns why it does not count, or None."""
        known = self.vector_names.setdefault(key, tuple(names))
        if tuple(names) != known:
            return f"{key}: its names changed from {', '.join(known)} to {', '.join(names)}"
        if len(values) != len(names) or not np.isfinite(values).all():
            return f"{key}: {len(values)} numbers for {len(names)} names, or one that is not finite"
        problem = self._watches[key].sample(now, stamp)
        if problem is None:
            self._vectors[key] = values
        return problem

    def forget(self) -> None:
        """Start anew, as after a fault was reset: clocks may have changed."""
        for watch in self._watches.values():
            watch.forget()

    def missing(self, needs: Mapping[str, tuple[int, ...]], now: float, age: float | None = None) -> list[str]:
        """Why no observation can be made of ``needs`` (key -> shape) at ``now``; empty where one can.

        ``age``: s that joint states and pictures may be old; the contract's deadlines where it is None.
        """
        reasons = []
        deadlines = self._contract.deadlines
        if now - self._state_at > (deadlines.joint_states if age is None else age):
            reasons.append("joint states are missing or old")
        cameras = {camera.name: camera for camera in self._contract.cameras}
        for key, shape in needs.items():
            if key.startswith(IMAGES):
                name = key[len(IMAGES) :]
                oldest = cameras[name].stop_after if age is None else age
                if name not in self._images or now - self._images[name][1] > oldest:
                    reasons.append(f"camera {name} is missing or old")
            elif key != STATE:
                if key not in self._vectors or self._watches[key].age(now) > self._vector_age:
                    reasons.append(f"{key} is missing or old")
                elif self._vectors[key].shape != tuple(shape):
                    reasons.append(f"{key} has shape {self._vectors[key].shape}, the policy wants {tuple(shape)}")
        return reasons

    def snapshot(self, needs: Mapping[str, tuple[int, ...]], now: float) -> Snapshot | None:
        """The newest of everything in ``needs``, or None where something is missing or old."""
        if self._positions is None or self.missing(needs, now):
            return None
        images = {key[len(IMAGES) :]: self._images[key[len(IMAGES) :]][0] for key in needs if key.startswith(IMAGES)}
        arrays = {key: self._vectors[key] for key in needs if key in self._vectors}
        return Snapshot(self._names, self._positions, images, arrays, self._state_at)


def unmet_needs(needs: Mapping[str, tuple[int, ...]], contract: RobotContract, vectors: list[NamedVector]) -> list[str]:
    """What a server wants that this robot cannot give, one line each, naming the key; empty where it fits."""
    cameras = {camera.name: camera for camera in contract.cameras}
    given = {vector.key for vector in vectors}
    lines = []
    for key, shape in needs.items():
        if key == STATE:
            if tuple(shape) != (len(contract.joints),):
                lines.append(f"{key}: the policy wants {shape}, the contract has {len(contract.joints)} joints")
        elif key.startswith(IMAGES):
            name = key[len(IMAGES) :]
            camera = cameras.get(name)
            if camera is None:
                lines.append(f"{key}: no camera {name!r} in the contract; it has {', '.join(cameras) or 'none'}")
            elif tuple(shape[:2]) != (camera.height, camera.width):
                lines.append(
                    f"{key}: the policy wants {tuple(shape[:2])}, the contract has {camera.height, camera.width}"
                )
        elif key not in given:
            lines.append(f"{key}: no topic gives it; add {key}=/its/topic to the parameter vectors")
    return lines
