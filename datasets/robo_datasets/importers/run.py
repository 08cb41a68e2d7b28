"""Importing a source into a store: checked first, in parallel, resumable, and undone when it fails.

Episodes are named after their content (``robo_datasets.importers.content``), so that a source that has grown, moved or
been packed again adds only what is new. A run that was killed leaves whole episodes and resumes after them; a run that
meets an error takes back what it added.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, Unpack

from robo_core.checksummed import replace_durably
from robo_core.console import progress_bar
from robo_core.errors import ImportSourceError, StoreError, WorkerDiedError
from robo_datasets.importers.ledger import Ledger, Stamps
from robo_datasets.importers.relabelling import ImportPlan, label_again, store_labels
from robo_datasets.importers.selection import SelectedSource, Selection
from robo_datasets.importers.source import Source
from robo_datasets.importers.workers import Done, Job, run_job
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.features import FeatureSpec, parse_features
from robo_datasets.store.layout import EPISODES, GROUP_FILE, STAGING, is_uuid, utc_now
from robo_datasets.store.writer import lock_folder


@dataclass(frozen=True)
class ImportResult:
    """What became of the episodes of a source."""

    added: int
    frames: int
    skipped: int
    """Episodes whose content was in the store already."""
    relabelled: int = 0
    """Of those that were there: given other stages, success, instruction or attributes."""
    differing: Mapping[str, int] = field(default_factory=dict)
    """Of those that were there: how many were left with other stages, another success and so on than the source and
    the plan give, by what differs."""
    bad: Mapping[int, str] = field(default_factory=dict)
    """Episodes that were left out, by number, and why."""
    copies: Mapping[int, int] = field(default_factory=dict)
    """Episodes that were left out because an earlier one of the source has the same content, by number."""
    notes: Sequence[str] = ()
    """What is odd about episodes that were added."""


class StoreOptions(TypedDict, total=False):
    """How a store is made; `DemoStore.create` explains each."""

    contract_hash: str | None
    contract: Mapping[str, object] | None
    codec: str
    quality: int
    subsampling: str


def import_source(
    source: Source,
    store_path: str | os.PathLike[str],
    plan: ImportPlan | None = None,
    workers: int | None = None,
    relabel: bool = False,
    skip_bad: bool = False,
    **store_options: Unpack[StoreOptions],
) -> ImportResult:
    """Import every episode of ``source`` whose content the store does not hold yet.

    Args:
        source: the data set.
        store_path: a store to append to, or to make with ``store_options``.
        plan: stage labels and success by episode number.
        workers: processes; the machine's cores by default, 0 for none besides this one.
        relabel: give episodes that are in the store already the stages, success, instruction and attributes that the
            source and the plan have now.
        skip_bad: leave out episodes that cannot be read.

    Raises:
        ImportSourceError: the source cannot be read; the store is as it was.
        StoreError: the store has another schema or cannot be written to; it is as it was.
        WorkerDiedError: a worker process died; whole episodes are kept.
    """
    plan = plan or ImportPlan()
    path = Path(store_path)
    if not source.episodes:
        raise ImportSourceError(f"{source.path} holds no episodes")
    existing = DemoStore.open(path) if (path / GROUP_FILE).exists() else None
    if existing is not None:
        source = _fitted(source, existing)
        existing.check_schema(source.features, source.fps, plan.stages)
    stamps, names = _known(source, path, existing)
    bad: dict[int, str] = {}
    todo = _checked(source, [p for p in range(len(source.episodes)) if p not in names], skip_bad, bad)
    before = None
    if existing is not None and plan.stages and not existing.stages and (todo or relabel):
        before = (path / GROUP_FILE).read_bytes()
        existing.name_stages(plan.stages)
    if not todo and not names:
        raise _nothing_left(source, bad)
    done: list[Done] = []
    store = existing
    if todo:
        store, made = (existing, False) if existing is not None else _make(path, source, plan, store_options)
        job = Job(
            source, path, store_labels(store, plan), plan.success or {}, _time_of_creation(store, source), skip_bad
        )
        try:
            with progress_bar("import", total=len(names) + len(todo), unit="episodes", done=len(names)) as bar:
                run_job(job, todo, workers, done, bar.advance)
            if skip_bad and not names and not any(one.uuid for one in done):
                bad |= {source.episodes[one.position].number: one.problem for one in done}
                raise _nothing_left(source, bad)
        except WorkerDiedError:
            raise  # whole episodes are kept
        except Exception:
            # Only what this run added: another one may be importing the same source.
            if before is not None:
                replace_durably(path / GROUP_FILE, before)
            _undo(path, [one.uuid for one in done if one.added], made=made)
            raise
        store = DemoStore.open(path)  # brings index.json up to date
    return _finish(source, store, plan, relabel, stamps, names, done, bad)


def _known(source: Source, path: Path, existing: DemoStore | None) -> tuple[dict[int, str], dict[int, str]]:
    """Stamps of the episodes, and the names of those that need not be read, by position."""
    taker = Stamps(source)
    stamps = {p: stamp for p, episode in enumerate(source.episodes) if (stamp := taker.stamp(episode)) is not None}
    if existing is None:
        return stamps, {}
    ledger = Ledger(path, source.path)
    names = {p: name for p, stamp in stamps.items() if (name := ledger.name(stamp)) is not None and name in existing}
    return stamps, names


def _checked(source: Source, todo: list[int], skip_bad: bool, bad: dict[int, str]) -> list[int]:
    """The positions of the episodes that can be read, as far as is seen without reading them."""
    good = []
    with progress_bar("check", total=len(todo), unit="episodes") as bar:
        for position in todo:
            episode = source.episodes[position]
            try:
                if episode.problem:
                    raise ImportSourceError(episode.problem)
                source.check(episode)
                good.append(position)
            except ImportSourceError as error:
                if not skip_bad:
                    raise
                bad[episode.number] = str(error)
            bar.advance()
    return good


def _nothing_left(source: Source, bad: Mapping[int, str]) -> ImportSourceError:
    number, reason = next(iter(bad.items()))
    return ImportSourceError(
        f"none of the {len(bad)} episodes of {source.path} can be read; episode {number}: {reason}"
    )


def _make(path: Path, source: Source, plan: ImportPlan, options: StoreOptions) -> tuple[DemoStore, bool]:
    """Make the store, or take the one that another import made meanwhile; says whether it was made here."""
    try:
        return DemoStore.create(path, source.features, source.fps, plan.stages, robot=source.robot, **options), True
    except StoreError:
        if not (path / GROUP_FILE).exists():
            raise
    store = DemoStore.open(path)
    store.check_schema(source.features, source.fps, plan.stages)
    if plan.stages and not store.stages:
        store.name_stages(plan.stages)
    return store, False


def _fitted(source: Source, store: DemoStore) -> Source:
    """The source without the optional features that the store lacks, and with zeros for those that it has."""
    surplus = [key for key in source.optional if key in source.features and key not in store.schema]
    lacking: dict[str, FeatureSpec] = {
        key: {"dtype": store.schema[key].dtype, "shape": store.schema[key].shape, "names": store.schema[key].names}
        for key in source.optional
        if key in store.schema and key not in source.features
    }
    if not surplus and not lacking:
        return source
    source.drop(surplus)
    parse_features(source.features)
    return SelectedSource(source, Selection(), lacking)


def _finish(
    source: Source,
    store: DemoStore | None,
    plan: ImportPlan,
    relabel: bool,
    stamps: Mapping[int, str],
    names: dict[int, str],
    done: Sequence[Done],
    bad: dict[int, str],
) -> ImportResult:
    """Sum up, relabel what was there where that is asked for, and note what the source's files hold."""
    added = {one.position for one in done if one.added}
    names |= {one.position: one.uuid for one in done if one.uuid}
    bad |= {source.episodes[one.position].number: one.problem for one in done if one.problem}
    copies = _copies(source, names, added)
    if store is not None:
        noted = {stamps[position]: name for position, name in names.items() if position in stamps}
        Ledger(store.path, source.path).note(noted, store)
    there = {
        position: name
        for position, name in sorted(names.items())
        if position not in added and source.episodes[position].number not in copies
    }
    changed, differing = (0, {}) if store is None else label_again(store, source, there, plan, relabel)
    frames = sum(source.episodes[position].length for position in added)
    notes = [note for one in sorted(done, key=lambda one: one.position) for note in one.notes]
    if store is not None:
        notes += _encoded_again(store, source, {names[position]: position for position in sorted(added)})
    return ImportResult(len(added), frames, len(there), changed, differing, dict(sorted(bad.items())), copies, notes)


def _encoded_again(store: DemoStore, source: Source, added: Mapping[str, int]) -> list[str]:
    """Episodes that were added although another one has the same numbers: its pictures went through a codec again.

    Tools that cut or merge data sets do that. Without numbers nothing tells two episodes of one length apart.
    """
    if not added or not any(not feature.is_frames for feature in store.schema.values()):
        return []
    first: dict[str, str] = {}
    pairs = []
    for episode in sorted(store, key=lambda episode: episode.uuid in added):
        record = episode.source.get("content") if isinstance(episode.source, dict) else None
        rows = record.get("rows") if isinstance(record, dict) else None
        if not isinstance(rows, str):
            continue
        other = first.setdefault(rows, episode.uuid)
        if episode.uuid in added and other != episode.uuid:
            pairs.append((source.episodes[added[episode.uuid]].number, other))
    if not pairs:
        return []
    return [
        f"{len(pairs)} episodes have the numbers of others in the store, with other pictures (encoded again?), for "
        f"example episode {pairs[0][0]} those of {pairs[0][1]}; robo-rm doctor names all of them"
    ]


def _copies(source: Source, names: Mapping[int, str], added: set[int]) -> dict[int, int]:
    """Episodes of the same content as another one of the source, which stands for them."""
    first: dict[str, int] = {}
    for position in sorted(names, key=lambda position: (position not in added, position)):
        first.setdefault(names[position], position)
    return {
        source.episodes[position].number: source.episodes[first[name]].number
        for position, name in sorted(names.items())
        if first[name] != position
    }


def _time_of_creation(store: DemoStore, source: Source) -> str:
    """One time for all episodes of a source, so that the order of the source is kept however it was resumed."""
    here = str(source.path.resolve())
    times = [
        episode.created for episode in store if isinstance(episode.source, dict) and episode.source.get("path") == here
    ]
    return max(times, default=utc_now())


def _undo(path: Path, added: list[str], made: bool) -> None:
    store = DemoStore.open(path)
    store.remove([name for name in added if name in store])
    others = [name for name in os.listdir(path / EPISODES) if is_uuid(name)]
    if made and not others and not _writing(path):
        shutil.rmtree(path, ignore_errors=True)


def _writing(path: Path) -> bool:
    """Whether another process is writing an episode into a store."""
    staging = path / STAGING
    for folder in staging.iterdir() if staging.is_dir() else ():
        try:
            handle = lock_folder(folder)
        except OSError:
            continue
        if handle is None:
            return True
        os.close(handle)
    return False


def with_picked_labels(plan: ImportPlan, source: SelectedSource) -> ImportPlan:
    """A plan for the whole of a source, for the frames that are picked."""
    return replace(plan, labels=source.picked_labels(plan.labels))
