"""Where a recorded episode goes: a demo store, and a bag. A store has a thread of its own that writes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import HardwareError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Writer

    from robo_datasets import DemoStore
    from robo_policies.robots.recording import RunEpisode


class RecordingError(HardwareError):
    """Nothing can be recorded there; says why."""


def open_store(path: str, contract: RobotContract, stages: list[str], vectors: dict[str, tuple[str, ...]]) -> DemoStore:
    """The demo store at ``path``, made with the contract's features where it is not there.

    ``vectors``: further features, key -> names. Raises:
        RecordingError: robo-rm is missing in this Python, or the store has other features or another contract.
    """
    try:
        from robo_core.errors import RoboError
        from robo_policies.robots.recording import open_run_store
    except ImportError as error:
        raise RecordingError(
            f"recording into a demo store needs robo-rm in this Python, 3.11 or later ({error}): pip install robo-rm, "
            "or record a bag (parameter bag) and import it with robo-rm import rosbag"
        ) from error
    try:
        return open_run_store(path, contract, vectors, stages)
    except RoboError as error:
        raise RecordingError(str(error)) from error


def begin_episode(store: DemoStore, task: str) -> RunEpisode:
    """A new episode in a store that ``open_store`` opened."""
    from robo_policies.robots.recording import RunEpisode

    return RunEpisode(store, task, source="ros2")


class Bag:
    """A rosbag2 folder, by rosbag2_py where that is, else by the package `rosbags`.

    Raises:
        RecordingError: neither is there, or the folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._topics: dict[str, Connection | None] = {}
        if path.exists():
            raise RecordingError(f"bag {path} exists already; choose another folder")
        try:
            import rosbag2_py

            self._native: ModuleType | None = rosbag2_py
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

    def _register(self, topic: str, kind: str) -> Connection | None:
        if self._native is None:
            from rosbags.typesys import Stores, get_typestore

            return self._writer.add_connection(topic, kind, typestore=get_typestore(Stores.ROS2_HUMBLE))
        metadata = {"name": topic, "type": kind, "serialization_format": "cdr"}
        try:
            self._writer.create_topic(self._native.TopicMetadata(**metadata))
        except TypeError:  # since Jazzy it has a number too
            self._writer.create_topic(self._native.TopicMetadata(id=len(self._topics), **metadata))
        return None


def _foreign_writer(path: Path) -> Writer:
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
