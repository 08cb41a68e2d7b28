"""The newest of every input that a policy may need, with its age; nothing is ever filled in.

An observation joins a joint state with one image per camera, taken within ``deadlines.skew`` of each other: the newest
joint state where that is close enough to every image, else an earlier one (cameras are slower than joint states).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import HardwareError
from robo_hw.safety.watch import StreamWatch

STATE = "observation.state"
IMAGES = "observation.images."
_ROUNDING = 1e-6
"""Stamps of today, in seconds, are exact to a quarter of a microsecond."""
_HISTORY = 2000
_KEPT = 1.5
"""Seconds of joint states that are kept, to find the one that belongs to an image."""

ImageSource: TypeAlias = "np.ndarray | Callable[[], np.ndarray | None]"
"""An image (H, W, 3) uint8 RGB, or a function that reads it when it is asked for (None: it is gone)."""


@dataclass(frozen=True)
class Observation:
    """What the arm, the cameras and the further inputs showed at one moment.

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


@dataclass(frozen=True)
class _Joints:
    names: tuple[str, ...]
    positions: np.ndarray
    at: float
    stamp: float | None


@dataclass(frozen=True)
class _Image:
    source: ImageSource
    at: float
    stamp: float | None


def parse_vectors(entries: Sequence[str]) -> list[NamedVector]:
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


class ObservationBuffer:
    """What came last, and whether it is fresh enough to act on; one thread uses it.

    Args:
        contract: of the robot; its deadlines bound joint states and cameras.
        vectors: further inputs.
        vector_age: s that a further input may be old.
    """

    def __init__(self, contract: RobotContract, vectors: Sequence[NamedVector], vector_age: float) -> None:
        self._contract = contract
        self._vector_age = vector_age
        self._skew = contract.deadlines.skew + _ROUNDING
        self._joints: deque[_Joints] = deque(maxlen=_HISTORY)
        self._images: dict[str, _Image] = {}
        self._vectors: dict[str, np.ndarray] = {}
        self.vector_names: dict[str, tuple[str, ...]] = {}
        """Names of the numbers of each further input, once it has come."""
        self._watches = {vector.key: StreamWatch(vector.key, vector_age / 2) for vector in vectors}

    def joints(self, names: Sequence[str], positions: np.ndarray, now: float, stamp: float | None = None) -> None:
        """Add a joint state that the core accepted: of ``now`` (steady clock), of ``stamp`` by the sender's clock."""
        self._joints.append(_Joints(tuple(names), positions, now, stamp))
        while self._joints[0].at < now - _KEPT:
            self._joints.popleft()

    def image(self, camera: str, source: ImageSource, now: float, stamp: float | None = None) -> None:
        """Add an image that the core accepted: received at ``now``, taken at ``stamp`` by the sender's clock."""
        self._images[camera] = _Image(source, now, stamp)

    def vector(self, key: str, names: Sequence[str], values: np.ndarray, now: float, stamp: float | None) -> str | None:
        """Add a further input; returns why it does not count, or None."""
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
        """Start again, as after a fault was reset: clocks may have changed."""
        self._joints.clear()
        self._images.clear()
        for watch in self._watches.values():
            watch.forget()

    def missing(self, needs: Mapping[str, tuple[int, ...]], now: float, age: float | None = None) -> list[str]:
        """Why no observation can be made of ``needs`` (key -> shape) at ``now``; empty where one can.

        ``age``: s that joint states and images may be old; the contract's deadlines where it is None.
        """
        reasons = []
        limit = self._contract.deadlines.joint_states if age is None else age
        if not self._joints or now - self._joints[-1].at > limit:
            reasons.append("joint states are missing or old")
        cameras = {camera.name: camera for camera in self._contract.cameras}
        for key, shape in needs.items():
            if key.startswith(IMAGES):
                name = key[len(IMAGES) :]
                oldest = cameras[name].stop_after if age is None else age
                if name not in self._images or now - self._images[name].at > oldest:
                    reasons.append(f"camera {name} is missing or old")
            elif key != STATE:
                if key not in self._vectors or self._watches[key].age(now) > self._vector_age:
                    reasons.append(f"{key} is missing or old")
                elif self._vectors[key].shape != tuple(shape):
                    reasons.append(f"{key} has shape {self._vectors[key].shape}, the policy wants {tuple(shape)}")
        if not reasons and (skewed := self._skewed(needs)) is not None:
            reasons.append(skewed)
        return reasons

    def snapshot(
        self, needs: Mapping[str, tuple[int, ...]], now: float, since: float = -np.inf, age: float | None = None
    ) -> Observation | None:
        """One observation of everything in ``needs``, or None where something is missing, old, or from before ``since``
        (s, steady clock)."""
        if self.missing(needs, now, age):
            return None
        joints = self._matching(needs)
        if joints is None or joints.at < since:
            return None
        images = {}
        for name in _cameras_of(needs):
            entry = self._images[name]
            image = entry.source() if callable(entry.source) else entry.source
            if entry.at < since or image is None:
                return None
            images[name] = image
        arrays = {key: self._vectors[key] for key in needs if key in self._vectors}
        return Observation(joints.names, joints.positions, images, arrays, joints.at)

    def _matching(self, needs: Mapping[str, tuple[int, ...]]) -> _Joints | None:
        """The newest joint state that lies within the skew of every image."""
        images = [self._images[name] for name in _cameras_of(needs)]
        for joints in reversed(self._joints):
            if all(_apart(joints, image) <= self._skew for image in images):
                return joints
        return None

    def _skewed(self, needs: Mapping[str, tuple[int, ...]]) -> str | None:
        names = _cameras_of(needs)
        if not names or self._matching(needs) is not None:
            return None
        limit = f"{self._contract.deadlines.skew:g} s"
        best = {name: min(_apart(joints, self._images[name]) for joints in self._joints) for name in names}
        worst = max(best, key=lambda name: best[name])
        if best[worst] > self._skew:
            return (
                f"camera {worst}: its image was taken {best[worst]:.3f} s apart from every joint state, the limit "
                f"(deadlines.skew) is {limit}; synchronise the two clocks, or find what delays the camera"
            )
        return (
            f"cameras {', '.join(names)}: no joint state lies within {limit} (deadlines.skew) of all their "
            "images; one of them is late"
        )


def unmet_needs(
    needs: Mapping[str, tuple[int, ...]], contract: RobotContract, vectors: Sequence[NamedVector]
) -> list[str]:
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


def _cameras_of(needs: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [key[len(IMAGES) :] for key in needs if key.startswith(IMAGES)]


def _apart(joints: _Joints, image: _Image) -> float:
    """Seconds between the two: by the senders' stamps where both have one, else by their arrival here."""
    if joints.stamp is not None and image.stamp is not None:
        return abs(joints.stamp - image.stamp)
    return abs(joints.at - image.at)
