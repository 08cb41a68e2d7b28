"""Runs of a policy as episodes of a demo store, with what the core and the person did about them, and the outcome."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robo_core.errors import RoboError, StoreError
from robo_datasets import DemoStore
from robo_hw.contract.robot_contract import RobotContract

_ROOM = 400
"""Frames that may wait for the disk."""
_MOST_INTERVENTIONS = 1000


def open_run_store(
    path: str, contract: RobotContract, vectors: Mapping[str, Sequence[str]], stages: Sequence[str]
) -> DemoStore:
    """The demo store at ``path``, made with the contract's features where it is not there.

    ``vectors``: further features, key -> names.

    Raises:
        StoreError: the store has other features, or was recorded under a contract that a policy could not share.
    """
    features: dict[str, dict[str, object]] = {
        f"observation.images.{camera.name}": {
            "dtype": "video",
            "shape": (camera.height, camera.width, 3),
            "names": ["height", "width", "channels"],
        }
        for camera in contract.cameras
    }
    names = list(contract.joint_names)
    for key in ("observation.state", "action"):
        features[key] = {"dtype": "float32", "shape": (len(names),), "names": names}
    for key, parts in vectors.items():
        features[key] = {"dtype": "float32", "shape": (len(parts),), "names": list(parts)}
    if not Path(path, "zarr.json").is_file():
        return DemoStore.create(
            path,
            features,
            fps=contract.rates.actions,
            stages=list(stages),
            robot=contract.robot,
            contract_hash=contract.hash,
            contract=contract.to_dict(),
        )
    store = DemoStore.open(path)
    differ = sorted(set(store.features) ^ set(features))
    if differ:
        raise StoreError(f"{path} has other features than this run: {', '.join(differ)}; record into another store")
    if store.contract_hash != contract.hash:
        raise StoreError(
            f"{path} was recorded under contract {str(store.contract_hash)[:12]}, this is {contract.hash[:12]}; "
            "record into another store"
        )
    return store


class RunEpisode:
    """One run on its way into a demo store; a thread of its own writes.

    Args:
        store: where to.
        task: the instruction.
        facts: what is kept of the run, plain JSON: policy, robot.
        source: what recorded it; with ``run-policy`` its interventions are kept, too.
    """

    def __init__(
        self, store: DemoStore, task: str, facts: Mapping[str, object] | None = None, source: str = "run-policy"
    ) -> None:
        self._store, self._task, self._facts, self._source = store, task, dict(facts or {}), source
        self._frames: queue.Queue[tuple[dict[str, np.ndarray], float, int] | None] = queue.Queue(_ROOM)
        self._verdict: tuple[bool, bool | None, str] = (False, None, "")
        self.problem = ""
        """Why it cannot be written."""
        self.uuid = ""
        self.frames = 0
        self.interventions: list[dict[str, object]] = []
        self._thread = threading.Thread(target=self._write, name="run-recorder", daemon=True)
        self._thread.start()

    def add(self, frame: Mapping[str, np.ndarray], timestamp: float, stage: int = -1) -> bool:
        """Hand over one frame; ``timestamp``: s since the episode began. False where it cannot be written."""
        if self.problem:
            return False
        try:
            self._frames.put_nowait((dict(frame), timestamp, stage))
        except queue.Full:
            self.problem = f"the disk cannot keep up: {_ROOM} frames wait"
            return False
        self.frames += 1
        return True

    def intervene(self, time: float, kind: str, message: str, **details: object) -> None:
        """Note what the core or a person did, ``time`` s after the episode began; the first thousand are kept."""
        if len(self.interventions) < _MOST_INTERVENTIONS:
            given = {key: value for key, value in details.items() if value is not None}
            self.interventions.append({"time": round(time, 4), "kind": kind, "message": message, **given})

    def end(self, keep: bool, success: bool | None, reason: str) -> str:
        """Commit it with its outcome, or forget it, and wait for that; returns one line that says which.

        Nothing is raised: what could not be written is said.
        """
        self._verdict = (keep and self.frames > 1 and not self.problem, success, reason)
        self._frames.put(None)
        self._thread.join()
        if self.problem:
            return f"the episode was not recorded: {self.problem}"
        if not self.uuid:
            return "no episode kept" if self.frames > 1 or not keep else "nothing was recorded: the run was too short"
        outcome = {True: "success", False: "failure", None: "outcome unknown"}[success]
        return f"recorded {self.frames} frames as {self.uuid}: {outcome}"

    def _write(self) -> None:
        class Discarded(Exception):  # leaves the writer's block without committing
            pass

        try:
            with self._store.writer(task=self._task, source=self._source, attributes=self._facts) as episode:
                self.uuid = episode.uuid
                while (item := self._frames.get()) is not None:
                    frame, timestamp, stage = item
                    episode.add(frame, timestamp=timestamp, stage=stage)
                keep, episode.success, reason = self._verdict
                if self._source == "run-policy":
                    episode.attributes["interventions"] = self.interventions
                if reason:
                    episode.attributes["ended"] = reason
                if not keep:
                    raise Discarded
        except Discarded:
            self.uuid = ""
        except (RoboError, OSError, ValueError) as error:
            self.uuid, self.problem = "", " ".join(str(error).split())
            while self._frames.get() is not None:  # until it is asked to end
                pass
