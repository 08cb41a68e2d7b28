from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from robo_datasets import DemoStore
from robo_datasets.errors import ImportSourceError, StoreError
from robo_datasets.importers.run import ImportPlan, import_source
from robo_datasets.importers.source import SourceEpisode, SourceFrame, episode_uuid


class Numbers:
    """A source of three episodes; the frames of ``faulty`` end in an error, after ``before`` was called."""

    format = "numbers"
    path = Path("numbers")
    features: ClassVar[dict] = {"action": {"shape": (1,), "dtype": "float32"}}
    fps = 10.0
    robot = None
    fingerprint = "f"

    def __init__(self, faulty: int | None = None, before=None, stops: type[BaseException] = ImportSourceError) -> None:
        self.episodes = [SourceEpisode(number, 3, "count") for number in range(3)]
        self._faulty, self._before, self._stops = faulty, before, stops

    def check(self, episode: SourceEpisode) -> None: ...

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        for frame in range(3):
            yield SourceFrame({"action": np.float32([frame])}, frame / 10)
        if episode.number == self._faulty:
            if self._before:
                self._before()
            raise self._stops("broken")


def test_only_what_the_failed_run_added_is_taken_back(tmp_path):
    path = tmp_path / "demos.zarr"
    source = Numbers()
    other = episode_uuid(source, source.episodes[2])

    def somebody_else_imports() -> None:
        with DemoStore.open(path).writer(uuid=other) as writer:
            writer.add({"action": np.float32([7])})

    with pytest.raises(ImportSourceError, match="broken"):
        import_source(Numbers(faulty=1, before=somebody_else_imports), path, workers=0)
    assert DemoStore.open(path).uuids == [other]


def test_an_interrupted_run_keeps_whole_episodes_and_is_resumed(tmp_path):
    path = tmp_path / "demos.zarr"
    with pytest.raises(KeyboardInterrupt):
        import_source(Numbers(faulty=1, stops=KeyboardInterrupt), path, workers=0)
    assert len(DemoStore.open(path)) == 1
    result = import_source(Numbers(), path, workers=0)
    assert (result.added, result.frames, result.skipped) == (2, 6, 1)
    assert [episode.source["episode"] for episode in DemoStore.open(path)] == [0, 1, 2]


def test_a_store_that_knows_more_stages_takes_labels_by_name(tmp_path):
    path = tmp_path / "demos.zarr"
    DemoStore.create(path, Numbers.features, fps=10, stages=["lift", "reach", "put"])
    plan = ImportPlan(stages=["reach", "put"], labels={0: np.array([0, 1, -1])})
    import_source(Numbers(), path, plan, workers=0)
    assert DemoStore.open(path)[0].stage.tolist() == [1, 2, -1]
    with pytest.raises(StoreError, match="stages"):
        import_source(Numbers(), path, ImportPlan(stages=["fly"]), workers=0)


def test_a_source_without_episodes_is_an_error(tmp_path):
    source = Numbers()
    source.episodes = []
    with pytest.raises(ImportSourceError, match="no episodes"):
        import_source(source, tmp_path / "demos.zarr")
    assert not (tmp_path / "demos.zarr").exists()
