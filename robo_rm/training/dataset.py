"""A torch dataset over the windows of a demo store, for `torch.utils.data.DataLoader`.

    dataset = WindowDataset(store, {"observation.images.front": [-0.1, 0.0], "action": [0.0, 0.1, 0.2]})
    loader = DataLoader(dataset, batch_size=32, sampler=BlockShuffle(dataset.plan, seed=0), num_workers=2)

Workers may be forked or spawned: each opens its own files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.windows import Window, WindowPlan, read_window, read_windows


class WindowDataset(Dataset[dict[str, torch.Tensor]]):
    """Windows as dictionaries of tensors.

    Each item holds, for every key, its values (n, ...) and ``<key>_is_pad`` (n,) bool; frames are uint8 (n, C, H, W).
    ``episode`` is the episode's place in ``plan.uuids`` and ``frame`` the anchor.

    Args:
        store: the store.
        deltas: key to time offsets in seconds from the anchor frame.
        uuids: episodes to use; all by default.
        every: anchors stand this many frames apart.
        size: (h, w) that frames are resized to while they are decoded.

    Raises:
        StoreError: see ``WindowPlan``.
    """

    def __init__(
        self,
        store: DemoStore,
        deltas: Mapping[str, Sequence[float]],
        uuids: Sequence[str] | None = None,
        every: int = 1,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.plan = WindowPlan(store, deltas, uuids, every)
        self._store, self._size = store, size
        self._places = {uuid: place for place, uuid in enumerate(self.plan.uuids)}

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.plan)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """The window of a number.

        Raises:
            IndexError: there are not so many.
            CorruptionError: stored bytes are damaged.
        """
        window = self.plan[number]
        return self._tensors(window, read_window(self._store, window, self._size))

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """The windows of a batch, read on all cores where no worker processes share them; a DataLoader calls this.

        Raises:
            IndexError, CorruptionError: as for one window.
        """
        windows = [self.plan[number] for number in numbers]
        found = read_windows(self._store, windows, self._size)
        return [self._tensors(window, arrays) for window, arrays in zip(windows, found, strict=True)]

    def _tensors(self, window: Window, arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        tensors = {}
        for key, array in arrays.items():
            tensor = torch.from_numpy(array)
            frames = key in self._store.schema and self._store.schema[key].is_frames
            tensors[key] = tensor.permute(0, 3, 1, 2) if frames else tensor
        tensors["episode"] = torch.tensor(self._places[window.uuid])
        tensors["frame"] = torch.tensor(window.anchor)
        return tensors
