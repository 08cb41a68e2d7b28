from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from robo_core.errors import ConfigError, EpisodeBusyError, EpisodeThereError, ImportSourceError, StoreError
from robo_datasets import DemoStore
from robo_datasets.importers.run import ImportPlan, import_source
from robo_datasets.importers.selection import SelectedSource, Selection, parse_episodes
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame, episode_content


class Numbers(Source):
    """A source of episodes that count from ``10 * number``; the frames of ``faulty`` end in an error."""

    format = "numbers"
    path = Path("numbers")
    features: ClassVar[dict] = {"action": {"shape": (1,), "dtype": "float32"}}
    fps = 10.0
    robot = None

    def __init__(
        self,
        faulty: int | None = None,
        before=None,
        stops: type[BaseException] = ImportSourceError,
        counts: tuple[int, ...] = (0, 10, 20),
    ) -> None:
        self.counts = counts
        self.episodes = [SourceEpisode(number, 3, "count") for number in range(len(counts))]
        self._faulty, self._before, self._stops = faulty, before, stops
        self._read: list[int] = []

    def check(self, episode: SourceEpisode) -> None: ...

    def identify(self, episode, content) -> None:
        content.add_rows("action", np.float32([[self.counts[episode.number]]]))

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        for frame in range(3):
            yield SourceFrame({"action": np.float32([self.counts[episode.number] + frame])}, frame / 10)
        if episode.number == self._faulty:
            if self._before:
                self._before()
            raise self._stops("broken")


def test_only_what_the_failed_run_added_is_taken_back(tmp_path):
    path = tmp_path / "demos.zarr"
    source = Numbers()
    other = episode_content(source, source.episodes[2]).uuid

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


def test_a_source_that_has_grown_adds_only_what_is_new_wherever_it_stands(tmp_path):
    path = tmp_path / "demos.zarr"
    import_source(Numbers(counts=(0, 10)), path, workers=0)
    grown = Numbers(counts=(5, 10, 0))  # one more, in front, and the others in another order
    grown.path = Path("elsewhere")
    result = import_source(grown, path, workers=0)
    assert (result.added, result.skipped, result.copies) == (1, 2, {})
    assert sorted(episode["action"][0, 0] for episode in DemoStore.open(path)) == [0, 5, 10]


def test_sources_of_equal_lengths_and_tasks_both_come_in(tmp_path):
    path = tmp_path / "demos.zarr"
    import_source(Numbers(counts=(0, 10)), path, workers=0)
    assert import_source(Numbers(counts=(1, 11)), path, workers=0).added == 2


def test_a_copy_inside_a_source_is_left_out_and_named(tmp_path):
    result = import_source(Numbers(counts=(0, 10, 0)), tmp_path / "demos.zarr", workers=0)
    assert (result.added, result.skipped, result.copies) == (2, 0, {2: 0})
    again = import_source(Numbers(counts=(0, 10, 0)), tmp_path / "demos.zarr", workers=0)
    assert (again.added, again.skipped, again.copies) == (0, 2, {2: 0})


def test_bad_episodes_are_skipped_by_name_when_that_is_asked_for(tmp_path):
    path = tmp_path / "demos.zarr"
    with pytest.raises(ImportSourceError, match="broken"):
        import_source(Numbers(faulty=1), path, workers=0)
    result = import_source(Numbers(faulty=1), path, workers=0, skip_bad=True)
    assert (result.added, result.bad) == (2, {1: "broken"})
    known = Numbers()
    known.episodes[0] = SourceEpisode(0, 3, "count", problem="file gone")
    with pytest.raises(ImportSourceError, match="file gone"):
        import_source(known, tmp_path / "other.zarr", workers=0)
    assert not (tmp_path / "other.zarr").exists()
    assert import_source(known, tmp_path / "other.zarr", workers=0, skip_bad=True).bad == {0: "file gone"}


def test_a_source_with_nothing_but_bad_episodes_leaves_no_store(tmp_path):
    source = Numbers(faulty=0, counts=(0,))
    with pytest.raises(ImportSourceError, match=r"none of the 1 episodes.*broken"):
        import_source(source, tmp_path / "demos.zarr", workers=0, skip_bad=True)
    assert not (tmp_path / "demos.zarr").exists()


class FileNumbers(Numbers):
    """Numbers that stand in a file; counts how often they are read to be known."""

    def __init__(self, path: Path, **options) -> None:
        super().__init__(**options)
        self.path, self.identified = path, 0

    def identify(self, episode, content) -> None:
        self.identified += 1
        super().identify(episode, content)


def test_repeating_an_import_reads_nothing_while_the_files_are_unchanged(tmp_path):
    file, store = tmp_path / "numbers.bin", tmp_path / "demos.zarr"
    file.write_bytes(b"1")
    import_source(FileNumbers(file), store, workers=0)
    same = FileNumbers(file)
    assert (import_source(same, store, workers=0).skipped, same.identified) == (3, 0)
    file.write_bytes(b"2")
    touched = FileNumbers(file)
    assert (import_source(touched, store, workers=0).skipped, touched.identified) == (3, 3)
    other = FileNumbers(file, counts=(7, 8, 9))
    assert import_source(other, store, workers=0).skipped == 3  # the files say that nothing changed
    shutil.rmtree(store / "imports")
    assert import_source(other, store, workers=0).added == 3
    DemoStore.open(store).remove([episode_content(other, other.episodes[0]).uuid])
    assert import_source(other, store, workers=0).added == 1


def import_numbers(path: Path, counts: tuple[int, ...]) -> None:
    import_source(Numbers(counts=counts), path, workers=0)


def test_imports_of_one_source_at_the_same_time_share_the_work(tmp_path):
    path = tmp_path / "demos.zarr"
    counts = tuple(range(0, 300, 10))
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=import_numbers, args=(path, counts)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 4
    assert len(DemoStore.open(path)) == len(counts)


def test_an_episode_that_another_import_is_writing_is_waited_for(tmp_path):
    path = tmp_path / "demos.zarr"
    store = DemoStore.create(path, Numbers.features, fps=10)
    source = Numbers()
    name = episode_content(source, source.episodes[1]).uuid
    begun, results = threading.Event(), []

    def import_all() -> None:
        begun.wait()
        results.append(import_source(Numbers(), path, workers=0))

    thread = threading.Thread(target=import_all)
    thread.start()
    with store.writer(uuid=name) as other:
        other.add({"action": np.float32([7])})
        begun.set()
        time.sleep(1.0)
        assert len(DemoStore.open(path)) == 1  # at the one that is held
    thread.join()
    assert (results[0].added, results[0].skipped) == (2, 1)


def test_two_writers_of_one_episode_are_told_apart_from_a_full_disk(tmp_path):
    store = DemoStore.create(tmp_path / "demos.zarr", Numbers.features, fps=10)
    name = "00000000-0000-0000-0000-000000000001"
    with store.writer(uuid=name) as first:
        first.add({"action": np.float32([1])})
        with pytest.raises(EpisodeBusyError, match="being written by another process"), store.writer(uuid=name):
            pass
    with pytest.raises(EpisodeThereError, match="already in"), store.writer(uuid=name):
        pass


def test_what_is_chosen_of_a_source(tmp_path):
    source = SelectedSource(
        Numbers(counts=(0, 10, 20)), Selection([range(1, 3)], rename={"action": "action.lift"}, fps=5)
    )
    result = import_source(source, tmp_path / "demos.zarr", workers=0)
    store = DemoStore.open(tmp_path / "demos.zarr")
    assert (result.added, result.frames, store.fps) == (2, 4, 5)
    assert store[0]["action.lift"][:].ravel().tolist() == [10, 12]
    assert store[0].timestamp.tolist() == [0, 0.2]
    # Another choice of episodes of the same source adds the one that is missing.
    more = SelectedSource(Numbers(counts=(0, 10, 20)), Selection(rename={"action": "action.lift"}, fps=5))
    assert import_source(more, tmp_path / "demos.zarr", workers=0).added == 1


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        ("0-2", [0, 1, 2]),
        ("0:2", [0, 1]),
        ([3, "5-6"], [3, 5, 6]),
        ("1, 4", [1, 4]),
        (7, [7]),
        (None, None),
    ],
)
def test_episodes_are_given_as_numbers_and_ranges(value, numbers):
    found = parse_episodes(value)
    assert (found and [number for part in found for number in part]) == numbers


@pytest.mark.parametrize("value", ["a", "3-1", "2:2", [1.5], -1, True, []])
def test_other_episodes_are_refused(value):
    with pytest.raises(ConfigError, match="episodes="):
        parse_episodes(value)


def test_a_choice_of_what_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no episode 3; it has 3 episodes, 0 to 2"):
        SelectedSource(Numbers(), Selection([range(2, 5)]))
    with pytest.raises(ConfigError, match="drop: numbers has no feature 'state'"):
        SelectedSource(Numbers(), Selection(drop=["state"]))
    with pytest.raises(ConfigError, match="rename: numbers has no feature 'state'"):
        SelectedSource(Numbers(), Selection(rename={"state": "action"}))


def test_labels_follow_the_frames_that_are_picked():
    source = SelectedSource(Numbers(), Selection(fps=5))
    assert source.picked_labels({0: np.array([0, 1, 2])})[0].tolist() == [0, 2]
    faster = SelectedSource(Numbers(), Selection(fps=20))
    assert faster.picks(3).tolist() == [0, 0, 1, 2, 2]
    assert "repeated" in faster.notes[0]
