from __future__ import annotations

import numpy as np
import pytest
import torch
from small_demos import FEATURES, FRONT, add_episode
from torch.utils.data import DataLoader

from robo_datasets import DemoStore
from robo_datasets.store.windows import BlockShuffle
from robo_rm.training.dataset import WindowDataset


@pytest.fixture
def dataset(tmp_path):
    store = DemoStore.create(tmp_path / "a.zarr", FEATURES, fps=10, stages=["reach", "place"])
    for seed in range(3):
        add_episode(store, length=6 + seed, seed=seed)
    return WindowDataset(store, {FRONT: [-0.1, 0.0], "action": [0.0, 0.1, 0.2], "stage": [0.0]}, size=(12, 16))


def test_an_item_holds_tensors_and_padding(dataset):
    item = dataset[5]  # the last frame of the first episode
    assert item[FRONT].shape == (2, 3, 12, 16)
    assert item[FRONT].dtype == torch.uint8
    assert item["action"].shape == (3, 3)
    assert item["action_is_pad"].tolist() == [False, True, True]
    assert (item["episode"].item(), item["frame"].item(), item["stage"].item()) == (0, 5, 1)


# Spawned workers import torch, which takes most of the time; the store itself is spawned in the fast suite.
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_give_what_the_main_process_gives(dataset, start):
    expected = [dataset[number] for number in BlockShuffle(dataset.plan, seed=1)]  # its files are open now
    loader = DataLoader(
        dataset,
        batch_size=4,
        sampler=BlockShuffle(dataset.plan, seed=1),
        num_workers=2,
        multiprocessing_context=start,
    )
    batches = list(loader)
    for key in expected[0]:
        got = torch.cat([batch[key] for batch in batches])
        np.testing.assert_array_equal(got.numpy(), torch.stack([item[key] for item in expected]).numpy())
