"""What may be said of an episode after it was written: stages, success, instruction, attributes.

The episode itself never changes; each edit is a new version of its annotations, and the older ones are the history.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robo_core.arrays import Array
from robo_core.errors import LabelError, StoreError
from robo_datasets.store.annotations import add_edit, runs_of
from robo_datasets.store.episode import Episode


class Edits:
    """The part of a demo store that edits episodes."""

    path: Path
    stages: list[str]

    @abstractmethod
    def episode(self, uuid: str) -> Episode:
        """An episode by its name."""

    @abstractmethod
    def check_local(self) -> None:
        """Raise StoreError where the store can only be read."""

    def set_stages(self, uuid: str, stages_per_frame: Sequence[int] | Array) -> None:
        """Replace an episode's stage labels, (T,) ints, -1 for unlabelled; the old ones stay as history.

        Raises:
            StoreError: no such episode.
            LabelError: another number of frames or an unknown stage; names episode and frame.
        """
        self.check_local()
        length = self.episode(uuid).length
        stage = np.asarray(stages_per_frame)
        if stage.shape != (length,):
            raise LabelError(f"episode {uuid} has {length} frames, the labels have shape {stage.shape}")
        if stage.dtype.kind not in "iu":
            raise LabelError(f"episode {uuid}: stage labels are whole numbers, got {stage.dtype}")
        wrong = np.flatnonzero((stage < -1) | (stage >= len(self.stages)))
        if len(wrong):
            raise LabelError(
                f"episode {uuid}, frame {wrong[0]}: stage {stage[wrong[0]]} is outside -1 to {len(self.stages) - 1} "
                f"({self.stages})"
            )
        add_edit(self.path, uuid, {"stage": runs_of(stage)})

    def set_success(self, uuid: str, success: bool | None) -> None:
        """Replace an episode's success.

        Raises:
            StoreError: no such episode, or a value that is neither bool nor None.
        """
        self.check_local()
        self.episode(uuid)
        if success is not None and not isinstance(success, bool | np.bool_):
            raise StoreError(f"success is true, false or null, got {success!r}")
        add_edit(self.path, uuid, {"success": None if success is None else bool(success)})

    def set_task(self, uuid: str, task: str) -> None:
        """Replace an episode's instruction.

        Raises:
            StoreError: no such episode.
        """
        self.check_local()
        self.episode(uuid)
        add_edit(self.path, uuid, {"task": str(task)})

    def set_attributes(self, uuid: str, attributes: Mapping[str, object]) -> None:
        """Replace some of an episode's attributes by name, or add to them; the others stay.

        Raises:
            StoreError: no such episode, or a value that is not plain JSON.
        """
        self.check_local()
        self.episode(uuid)
        try:
            plain = json.loads(json.dumps(dict(attributes), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise StoreError(f"the attributes of episode {uuid} are not plain JSON: {error}") from error
        add_edit(self.path, uuid, {"attributes": plain})
