"""Importing a source into a store: checked first, in parallel, resumable, and undone when it fails.

Episodes are named after their source, so the same command skips those that are there. A run that was killed leaves
whole episodes and goes on from them; a run that meets an error takes back what it added.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robo_datasets.console import progress_bar
from robo_datasets.errors import ImportSourceError, StoreError
from robo_datasets.importers.source import Source, episode_uuid, source_record
from robo_datasets.layout import EPISODES, GROUP_FILE, is_uuid, utc_now
from robo_datasets.sealed import replace_durably
from robo_datasets.store import DemoStore

_PARENT_CHECK_S = 0.25


@dataclass(frozen=True)
class ImportPlan:
    """What to do with each episode beyond its frames."""

    stages: Sequence[str] = ()
    """Stage names of a store that is made."""
    labels: Mapping[int, np.ndarray] | None = None
    """Episode number to per-frame stages (T,), indices into ``stages``."""
    success: Mapping[int, bool | None] | None = None
    """Episode number to success."""


@dataclass(frozen=True)
class ImportResult:
    """How many episodes and frames were added, and how many episodes were there already."""

    added: int
    frames: int
    skipped: int
    relabelled: int = 0
    """Of those that were there: given other stages or another success."""
    differing: int = 0
    """Of those that were there: left with stages that differ from the plan's."""


@dataclass(frozen=True)
class _Job:
    source: Source
    store: Path
    plan: ImportPlan
    stages: tuple[int, ...]
    """Stage index in the plan to stage index in the store."""
    created: str


def import_source(
    source: Source,
    store_path: str | os.PathLike[str],
    plan: ImportPlan | None = None,
    workers: int | None = None,
    relabel: bool = False,
    **store_options: Any,
) -> ImportResult:
    """Import every episode of ``source`` that the store does not hold yet.

    Args:
        source: the data set.
        store_path: a store to append to, or to make with ``store_options`` (codec, quality, subsampling).
        plan: stage labels and success by episode number.
        workers: processes; the machine's cores by default, 0 for none besides this one.
        relabel: give episodes that are in the store already the plan's stages and success.

    Raises:
        ImportSourceError: the source cannot be read; the store is as it was.
        StoreError: the store has another schema or cannot be written to; it is as it was.
    """
    plan = plan or ImportPlan()
    path = Path(store_path)
    if not source.episodes:
        raise ImportSourceError(f"{source.path} holds no episodes")
    existing = DemoStore.open(path) if (path / GROUP_FILE).exists() else None
    if existing is not None:
        existing.check_schema(source.features, source.fps, plan.stages)
    todo = [
        number
        for number, episode in enumerate(source.episodes)
        if existing is None or episode_uuid(source, episode) not in existing
    ]
    with progress_bar("check", total=len(todo), unit="episodes") as bar:
        for number in todo:
            source.check(source.episodes[number])
            bar.advance()
    skipped = len(source.episodes) - len(todo)
    before = None
    if existing is not None and plan.stages and not existing.stages and (todo or relabel):
        before = (path / GROUP_FILE).read_bytes()
        existing.name_stages(plan.stages)
    if not todo:
        return ImportResult(0, 0, skipped, *_label_again(existing, source, todo, plan, relabel))
    store = existing
    if store is None:
        store = DemoStore.create(path, source.features, source.fps, plan.stages, robot=source.robot, **store_options)
    job = _Job(source, path, plan, _stage_numbers(store, plan), _time_of_creation(store, source))
    added: list[int] = []
    try:
        with progress_bar("import", total=len(source.episodes), unit="episodes", done=skipped) as bar:
            _run(job, todo, workers, added, bar.advance)
    except BrokenProcessPool as error:
        raise StoreError(
            f"a worker process died while importing into {path} (out of memory?); whole episodes are kept and the "
            "same command goes on from them"
        ) from error
    except Exception:
        # Only what this run added: another one may be importing the same source.
        if before is not None:
            replace_durably(path / GROUP_FILE, before)
        _undo(path, [episode_uuid(source, source.episodes[number]) for number in added], made=existing is None)
        raise
    DemoStore.open(path)  # brings index.json up to date
    frames = sum(source.episodes[number].length for number in added)
    return ImportResult(len(added), frames, skipped, *_label_again(existing, source, todo, plan, relabel))


def _stage_numbers(store: DemoStore, plan: ImportPlan) -> tuple[int, ...]:
    """The store's stage for each of the plan's."""
    return tuple(store.stages.index(name) for name in plan.stages)


def _label_again(
    store: DemoStore | None, source: Source, added: Sequence[int], plan: ImportPlan, relabel: bool
) -> tuple[int, int]:
    """Compare the episodes that were there with the plan: how many were labelled anew, how many differ and stay."""
    if store is None or not (plan.labels or relabel):
        return 0, 0
    if not set(plan.stages) <= set(store.stages):  # it has none, and was not to be given these
        return 0, sum(episode.number in (plan.labels or {}) for episode in source.episodes)
    stages = np.array([*_stage_numbers(store, plan), -1], np.int16)  # the last one stands for unlabelled
    changed = differing = 0
    for position in sorted(set(range(len(source.episodes))) - set(added)):
        number = source.episodes[position].number
        episode = store.episode(episode_uuid(source, source.episodes[position]))
        labels = (plan.labels or {}).get(number)
        other_stages = labels is not None and not np.array_equal(episode.stage, stages[labels])
        success = (plan.success or {}).get(number, episode.success)
        if not relabel:
            differing += other_stages
            continue
        if labels is not None and other_stages:
            store.set_stages(episode.uuid, stages[labels])
        if success != episode.success:
            store.set_success(episode.uuid, success)
        elif not other_stages:
            continue
        changed += 1
    return changed, differing


def _run(job: _Job, todo: list[int], workers: int | None, added: list[int], done: Callable[[], None]) -> None:
    """Import the episodes ``todo``; ``added`` says which were committed, also when this raises."""
    count = min(len(todo), os.cpu_count() or 1) if workers is None else min(len(todo), workers)
    if count < 2:
        store = DemoStore.open(job.store)
        for number in todo:
            _import_episode(job, store, number)
            added.append(number)
            done()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _start_worker, (job,)) as pool:
        futures = {pool.submit(_work, number): number for number in todo}
        try:
            for future in as_completed(futures):
                future.result()
                done()
        finally:
            # After an error: waits for the episodes in work, so that nothing is added later.
            pool.shutdown(wait=True, cancel_futures=True)
            added += [
                number
                for future, number in futures.items()
                if not future.cancelled() and future.done() and future.exception() is None
            ]


_worker: tuple[_Job, DemoStore] | None = None


def _start_worker(job: _Job) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    _worker = job, DemoStore.open(job.store)


def _end_with_parent(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever, and hold the episode that it is at."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)


def _work(number: int) -> None:
    if _worker is None:
        raise StoreError("an import worker was not started properly")
    _import_episode(*_worker, number)


def _import_episode(job: _Job, store: DemoStore, position: int) -> None:
    episode = job.source.episodes[position]
    labels = (job.plan.labels or {}).get(episode.number)
    writer = store.writer(
        task=episode.task,
        success=(job.plan.success or {}).get(episode.number, episode.success),
        source=source_record(job.source, episode),
        attributes=episode.attributes,
        uuid=episode_uuid(job.source, episode),
        created=job.created,
        sequence=position,
    )
    with writer:
        for number, frame in enumerate(job.source.frames(episode)):
            label = -1 if labels is None else int(labels[number])
            writer.add(
                frame.values,
                frame.timestamp,
                stage=job.stages[label] if label >= 0 else -1,
                receive_timestamp=frame.receive_timestamp,
            )
        if len(writer) != episode.length:
            raise ImportSourceError(
                f"{job.source.path}: episode {episode.number} has {len(writer)} frames, {episode.length} are declared"
            )


def _time_of_creation(store: DemoStore, source: Source) -> str:
    """One time for all episodes of a source, so that the order of the source is kept however it was resumed."""
    for episode in source.episodes:
        name = episode_uuid(source, episode)
        if name in store:
            return store.episode(name).created
    return utc_now()


def _undo(path: Path, added: list[str], made: bool) -> None:
    store = DemoStore.open(path)
    store.remove([name for name in added if name in store])
    others = [name for name in os.listdir(path / EPISODES) if is_uuid(name)]
    if made and not others:
        shutil.rmtree(path, ignore_errors=True)
