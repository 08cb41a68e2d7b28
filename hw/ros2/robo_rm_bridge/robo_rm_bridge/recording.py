"""Where a recorded episode goes: a demo store, and a bag. Writing has threads of its own; the node only hands over."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import HardwareError

_ROOM = 400
"""Frames that may wait for the disk."""


class RecordingError(HardwareError):
    """Nothing can be recorded there; says why."""


def open_store(path: str, contract: RobotContract, stages: list[str], vectors: dict[str, tuple[str, ...]]) -> Any:
    """The demo store at ``path``, made with the contract's features where it is not there.

    ``vectors``: further features, key -> names. Raises:
        RecordingError: robo_datasets is missing in this Python, or the store has other features or another contract.
    """
    try:
        from robo_core.errors import RoboError
        from robo_datasets import DemoStore
    except ImportError as error:
        raise RecordingError(
            f"recording into a demo store needs robo-rm in this Python, 3.11 or later ({error}): pip install robo-rm, "
            "or record a bag (parameter bag) and import it with robo-rm import rosbag"
        ) from error
    names = list(contract.joint_names)
    features: dict[str, dict[str, Any]] = {
        f"observation.images.{camera.name}": {
            "dtype": "video",
            "shape": (camera.height, camera.width, 3),
            "names": ["height", "width", "channels"],
        }
        for camera in contract.cameras
    }
    for key in ("observation.state", "action"):
        features[key] = {"dtype": "float32", "shape": (len(names),), "names": names}
    for key, parts in vectors.items():
        features[key] = {"dtype": "float32", "shape": (len(parts),), "names": list(parts)}
    try:
        if Path(path, "zarr.json").is_file():
            store = DemoStore.open(path)
            if set(store.features) != set(features):
                differ = ", ".join(sorted(set(store.features) ^ set(features)))
                raise RecordingError(
                    f"{path} has other features than this recorder: {differ}; record into another store"
                )
            return store
        return DemoStore.create(
            path,
            features,
            fps=contract.rates.actions,
            stages=stages,
            robot=contract.robot,
            contract_hash=contract.hash,
            contract=contract.to_dict(),
        )
    except RoboError as error:
        raise RecordingError(str(error)) from error


class StoreEpisode:
    """One episode on its way into a demo store."""

    def __init__(self, store: Any, task: str) -> None:
        self._store, self._task = store, task
        self._frames: queue.Queue[Any] = queue.Queue(_ROOM)
        self._verdict: tuple[bool, bool | None, str] | None = None
        self.problem = ""
        """Why it could not be written."""
        self.uuid = ""
        self.count = 0
        self._thread = threading.Thread(target=self._write, name="store-writer")
        self._thread.start()

    def add(self, frame: dict[str, np.ndarray], timestamp: float, stage: int) -> bool:
        """Hand over one frame; False where the disk cannot keep up, or writing has failed."""
        if self.problem:
            return False
        try:
            self._frames.put_nowait((frame, timestamp, stage))
        except queue.Full:
            self.problem = f"the disk cannot keep up: {_ROOM} frames wait"
            return False
        self.count += 1
        return True

    def end(self, keep: bool, success: bool | None = None, reason: str = "") -> None:
        """Commit or discard, and wait for it.

        Raises:
            RecordingError: it could not be written.
        """
        self._verdict = (keep and not self.problem and self.count > 1, success, reason)
        self._frames.put(None)
        self._thread.join()
        if self.problem:
            raise RecordingError(f"the episode was not recorded: {self.problem}")

    def _write(self) -> None:
        from robo_core.errors import RoboError

        class Discarded(Exception):  # leaves the writer's block without committing
            pass

        try:
            with self._store.writer(task=self._task, source="ros2") as episode:
                self.uuid = episode.uuid
                while (item := self._frames.get()) is not None:
                    frame, timestamp, stage = item
                    episode.add(frame, timestamp=timestamp, stage=stage)
                keep, episode.success, reason = self._verdict or (False, None, "")
                if reason:
                    episode.attributes["ended"] = reason
                if not keep:
                    raise Discarded
        except Discarded:
            self.uuid = ""
        except (RoboError, OSError) as error:
            self.uuid, self.problem = "", str(error)
            while self._frames.get() is not None:  # until it is told to end
                pass


class Bag:
    """A rosbag2 folder, by rosbag2_py where that is, else by the package `rosbags`.

    Raises:
        RecordingError: neither is there, or the folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._topics: dict[str, Any] = {}
        if path.exists():
            raise RecordingError(f"bag {path} exists already; choose another folder")
        try:
            import rosbag2_py

            self._native: Any = rosbag2_py
            self._writer = rosbag2_py.SequentialWriter()
            options = rosbag2_py.StorageOptions(uri=str(path), storage_id="sqlite3")
            self._writer.open(options, rosbag2_py.ConverterOptions("", ""))
        except ImportError:
            self._native = None
            self._writer = _foreign_writer(path)

    def write(self, topic: str, kind: type, data: bytes, moment_ns: int) -> None:
        """Keep one message of type ``kind`` as it came over the wire, received at ``moment_ns`` of the time of day."""
        if topic not in self._topics:
            self._topics[topic] = self._register(topic, f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}")
        if self._native is not None:
            self._writer.write(topic, data, moment_ns)
        else:
            self._writer.write(self._topics[topic], moment_ns, data)
        self.count += 1

    def close(self) -> None:
        """Write the index."""
        if self._native is None:
            self._writer.close()
        self._writer = None

    def _register(self, topic: str, kind: str) -> Any:
        if self._native is None:
            from rosbags.typesys import Stores, get_typestore

            return self._writer.add_connection(topic, kind, typestore=get_typestore(Stores.ROS2_HUMBLE))
        metadata = {"name": topic, "type": kind, "serialization_format": "cdr"}
        try:
            self._writer.create_topic(self._native.TopicMetadata(**metadata))
        except TypeError:  # since Jazzy it has a number too
            self._writer.create_topic(self._native.TopicMetadata(id=len(self._topics), **metadata))
        return True


def _foreign_writer(path: Path) -> Any:
    try:
        from rosbags.rosbag2 import Writer
    except ImportError as error:
        raise RecordingError(
            "neither rosbag2_py nor rosbags is there to write bags: install ros-$ROS_DISTRO-rosbag2-py, or pip install "
            "rosbags"
        ) from error
    writer = Writer(path, version=8)
    writer.open()
    return writer
