"""Small stores for the tests of the datasets package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_demos import FEATURES, add_episode

from robo_datasets import DemoStore


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests outlive killed processes, not power cuts; waiting for the disk would take most of their time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., DemoStore]:
    """Make a store of ``episodes`` episodes with two stages at 10 frames/s."""

    def make(episodes: int = 2, name: str = "demos.zarr", **options: Any) -> DemoStore:
        settings = {"features": FEATURES, "fps": 10, "stages": ["reach", "place"], **options}
        store = DemoStore.create(tmp_path / name, **settings)
        for seed in range(episodes):
            add_episode(store, seed=seed)
        return store

    return make
