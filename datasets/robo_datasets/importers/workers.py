"""Reading and writing single episodes, here or in worker processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from robo_core.checksummed import keep_sync_threads
from robo_core.errors import (
    CorruptionError,
    EpisodeBusyError,
    EpisodeThereError,
    ImportSourceError,
    StoreError,
    StoreWriteError,
)
from robo_core.processes import run_in_processes
from robo_core.threads import available_cores
from robo_datasets.importers.content import Content
from robo_datasets.importers.source import Source, SourceEpisode, episode_content, source_record
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode
from robo_datasets.store.layout import EPISODES

_BUSY_WAIT_S = 0.2
# A step between time stamps of this many seconds, and of this many usual steps, is reported.
_HOLE_S, _HOLE_STEPS = 1.0, 3.0
# Share by which the usual step may differ from the declared rate.
_OTHER_RATE = 0.1


@dataclass(frozen=True)
class Job:
    """What every worker needs to know."""

    source: Source
    store: Path
    labels: Mapping[int, np.ndarray]
    """Episode number to stages of the store by frame."""
    success: Mapping[int, bool | None]
    created: str
    skip_bad: bool = False


@dataclass(frozen=True)
class Done:
    """What became of an episode."""

    position: int
    uuid: str = ""
    """Name of the episode in the store; empty where it could not be read."""
    added: bool = False
    problem: str = ""
    """Why it was left out."""
    notes: tuple[str, ...] = ()
    """What is odd about how it was read."""


def run_job(job: Job, todo: list[int], workers: int | None, done: list[Done], advance: Callable[[], None]) -> None:
    """Import the episodes at the positions ``todo``; ``done`` says what became of each, also when this raises.

    Raises:
        ImportSourceError: an episode cannot be read, and bad ones are not to be skipped.
        StoreError: the store cannot be written to.
        WorkerDiedError: a worker process died.
    """

    def note(one: Done) -> None:
        done.append(one)
        advance()

    count = min(len(todo), available_cores() if workers is None else workers)
    if count > 1:
        # The longest first, so that no process is left with a long one when the others have ended.
        todo = sorted(todo, key=lambda position: -job.source.episodes[position].length)
    run_in_processes(
        _import_in_worker,
        todo,
        count,
        partial(_open_store, job, in_worker=count > 1),
        note,
        f"importing into {job.store}",
        "whole episodes are stored; run the same command again to resume",
    )


@contextmanager
def _open_store(job: Job, in_worker: bool) -> Iterator[tuple[Job, DemoStore]]:
    if in_worker:
        keep_sync_threads()
    yield job, DemoStore.open(job.store)


def _import_in_worker(state: tuple[Job, DemoStore], position: int) -> Done:
    return import_episode(*state, position)


def import_episode(job: Job, store: DemoStore, position: int) -> Done:
    """Import one episode unless the store has its content.

    Raises:
        ImportSourceError, StoreError: as ``run_job``.
    """
    try:
        return _import_episode(job, store, position)
    except (StoreWriteError, CorruptionError):
        raise
    except (ImportSourceError, StoreError) as error:
        if not job.skip_bad:
            raise
        return Done(position, problem=str(error))


def _import_episode(job: Job, store: DemoStore, position: int) -> Done:
    episode = job.source.episodes[position]
    changed: tuple[str, ...] = ()
    if episode.exported in store:
        if _same_numbers(store.episode(episode.exported), job.source.numbers(episode)):
            return Done(position, episode.exported)  # back from an export, which may have encoded its pictures again
        changed = (
            f"episode {episode.number} was exported from {episode.exported}, which the store holds; its numbers are "
            "others now, and it was added beside it",
        )
    content = episode_content(job.source, episode)
    name = content.uuid
    while not (job.store / EPISODES / name).exists():
        try:
            notes = _write_episode(job, store, position, episode, content)
        except EpisodeThereError:
            break
        except EpisodeBusyError:
            time.sleep(_BUSY_WAIT_S)  # another import is at the same episode: it will be there, or free again
            continue
        return Done(position, name, added=True, notes=(*changed, *notes))
    return Done(position, name)


def _same_numbers(episode: Episode, numbers: Mapping[str, np.ndarray]) -> bool:
    """Whether an episode of a store has these low-dimensional features (T, ...), to the last bit."""
    compared = 0
    for key, rows in numbers.items():
        if key in episode:
            kept = episode[key][:]
            if len(rows) != len(kept) or not np.array_equal(
                np.asarray(rows, kept.dtype).reshape(kept.shape), kept, equal_nan=kept.dtype.kind == "f"
            ):
                return False
            compared += 1
    return compared > 0


def _write_episode(
    job: Job, store: DemoStore, position: int, episode: SourceEpisode, content: Content
) -> tuple[str, ...]:
    labels = job.labels.get(episode.number)
    writer = store.writer(
        task=episode.task,
        success=job.success.get(episode.number, episode.success),
        source=source_record(job.source, episode, content),
        attributes=episode.attributes,
        uuid=content.uuid,
        created=job.created,
        sequence=position,
    )
    stages = None if labels is None else labels.tolist()
    times: list[float] = []
    with writer:
        for number, (values, time_stamp, received) in enumerate(job.source.frames(episode)):
            times.append(time_stamp)
            writer.add(values, time_stamp, None if stages is None else stages[number], received)
        if len(writer) != episode.length:
            raise ImportSourceError(
                f"{job.source.path}: episode {episode.number} has {len(writer)} frames, {episode.length} are declared"
            )
        details = job.source.details(episode)
        writer.attributes.update(details.attributes)
        writer.attributes.update({key: [list(run) for run in runs] for key, runs in details.runs.items()})
        if details.task is not None:
            writer.task = details.task
    return (*details.notes, *_odd_times(episode.number, np.array(times), job.source.fps))


def _odd_times(number: int, times: np.ndarray, fps: float) -> Iterator[str]:
    """Time stamps (T,) that no clock gives, or of another rate than ``fps``: frames are kept as they are, and it is
    said."""
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 1 / fps
    if usual > 0 and abs(usual * fps - 1) > _OTHER_RATE:
        yield (
            f"episode {number}: by the time stamps frames are {usual:.4g} s apart ({1 / usual:.4g} per second), and "
            f"the data set says {fps:g} frames per second, which everything counted in seconds goes by"
        )
    back = np.flatnonzero(steps <= 0)
    if len(back):
        at = int(back[0]) + 1
        yield f"episode {number}: the time stamps do not rise at frame {at} ({times[at - 1]:.3f} to {times[at]:.3f} s)"
    elif len(steps) and steps.max() > max(_HOLE_S, _HOLE_STEPS * float(np.median(steps))):
        at = int(np.argmax(steps))
        yield f"episode {number}: the time stamps jump by {steps[at]:.3f} s after frame {at}"
