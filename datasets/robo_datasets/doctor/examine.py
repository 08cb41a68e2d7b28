"""All checks of a store in order."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from robo_core.checksummed import digest
from robo_core.console import progress_bar
from robo_core.errors import StoreError
from robo_datasets.doctor.across_episodes import (
    check_constant,
    check_duplicates,
    check_lag,
    check_units,
    feature_scales,
    state_action_lag,
)
from robo_datasets.doctor.findings import Report
from robo_datasets.doctor.images import (
    ImageStatistics,
    check_frozen,
    check_images,
    check_twins,
    measure_images,
    usual_edges,
)
from robo_datasets.doctor.integrity import (
    check_annotations,
    check_derived,
    check_episode_files,
    check_staging,
    check_store_files,
)
from robo_datasets.doctor.signals import (
    check_idle,
    check_jumps,
    check_numbers,
    check_stages,
    check_timestamps,
    still_frames,
)
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.description import read_description
from robo_datasets.store.index import DamagedEpisodeWarning
from robo_datasets.store.layout import EPISODES, GROUP_FILE


def examine(root: Path) -> Report:
    """Check every file of a store, then what its whole episodes say."""
    report = Report()
    report.findings += check_store_files(root)
    report.findings += check_staging(root)
    try:
        schema_hash = digest(read_description(root)["schema"])
    except StoreError:
        schema_hash = None
    folders = sorted((root / EPISODES).iterdir()) if (root / EPISODES).is_dir() else []
    folders = [folder for folder in folders if folder.name != GROUP_FILE]
    with progress_bar("files", total=len(folders), unit="episodes") as bar:
        for folder in folders:
            report.findings += check_episode_files(folder, schema_hash)
            bar.advance()
    report.findings += check_annotations(root)
    report.findings += check_derived(root)
    if schema_hash is not None:
        _examine_signals(root, report)
    return report


def _examine_signals(root: Path, report: Report) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEpisodeWarning)  # reported above
        store = DemoStore.open(root)
    damaged = {
        os.path.basename(finding.where) for finding in report.findings if finding.check in ("files", "annotations")
    }
    whole = [uuid for uuid in store.uuids if uuid not in damaged]
    report.episodes = len(whole)
    report.frames = sum(store.lengths[uuid] for uuid in whole)
    scales = feature_scales(store, whole)
    statistics: dict[str, list[ImageStatistics]] = {key: [] for key in store.cameras}
    with progress_bar("signals", total=len(whole), unit="episodes") as bar:
        for uuid in whole:
            episode = store.episode(uuid)
            report.findings += check_timestamps(episode, store.fps)
            report.findings += check_numbers(episode, store)
            for key in store.cameras:
                statistics[key].append(measure_images(episode, store, key))
            if episode.length > 1:
                still = still_frames(episode, scales)
                if still is not None:
                    report.findings += check_idle(episode, store.fps, still)
                report.findings += check_frozen(episode, store, still)
            report.findings += check_jumps(episode, scales)
            report.findings += check_stages(episode, store)
            bar.advance()
    usual = usual_edges(statistics) if whole else {}
    for place, uuid in enumerate(whole):
        found = {key: statistics[key][place] for key in store.cameras}
        report.findings += check_images(store.episode(uuid), store, found, usual)
        report.findings += check_twins(store.episode(uuid), store, found)
    report.findings += check_constant(scales, len(whole))
    report.findings += check_units(store, whole, scales)
    report.findings += check_duplicates(store, whole)
    lag = state_action_lag(store, whole, scales)
    report.findings += check_lag(lag, store.fps)
    report.lag = None if lag is None else lag[0]
