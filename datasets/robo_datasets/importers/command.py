"""The last step of every import command: read the source into the store, say what was added, write the metrics."""

from __future__ import annotations

import time
from typing import Unpack

from robo_core.cli.following import say_next
from robo_core.console import say
from robo_core.errors import ConfigError, ImportSourceError
from robo_core.outputs import OutputFolder
from robo_datasets.importers.options import unknown_outcomes
from robo_datasets.importers.run import ImportPlan, ImportResult, StoreOptions, import_source, with_picked_labels
from robo_datasets.importers.selection import SelectedSource, Selection, parse_episodes, parse_rename, storable_keys
from robo_datasets.importers.settings import ImportConfig
from robo_datasets.importers.source import Source
from robo_datasets.recognise import mistaken_source

_LISTED = 12


def check_places(config: ImportConfig, importer: str) -> None:
    """Check that source and store are named, and that the source is not of another format than the command reads.

    Args:
        config: the command's settings.
        importer: the command's own word, such as ``lerobot``.

    Raises:
        ConfigError: one of them is not named.
        ImportSourceError: the source is of another format; names the command that reads it.
    """
    if not config.source or not config.store:
        raise ConfigError("give source=PATH and store=PATH")
    mistaken = mistaken_source(config.source, importer, config.store)
    if mistaken:
        raise ImportSourceError(mistaken)


def run_import(config: ImportConfig, source: Source, plan: ImportPlan, **options: Unpack[StoreOptions]) -> ImportResult:
    """Import ``source`` as ``config`` asks, print what was added, and write metrics.json where ``out`` is given.

    Args:
        config: the command's settings.
        source: the dataset.
        plan: stage labels and success.
        options: more settings of a store that is made, besides codec, quality and subsampling.

    Raises:
        ImportSourceError: the source cannot be read; the store is as it was.
        StoreError: the store has another schema or cannot be written to.
        ConfigError: a setting names an episode or a feature that the source does not have.
    """
    selection = Selection(
        parse_episodes(config.episodes), list(config.drop), parse_rename(config.rename), config.resample_fps
    )
    if not selection.changes_nothing or storable_keys(list(source.features)):
        selected = SelectedSource(source, selection)
        source, plan = selected, with_picked_labels(plan, selected)
    started = time.monotonic()
    settings: StoreOptions = {
        "codec": config.codec,
        "quality": config.quality,
        "subsampling": config.subsampling,
        **options,
    }
    result = import_source(
        source, config.store, plan, config.workers, config.relabel, skip_bad=config.skip_bad, **settings
    )
    seconds = time.monotonic() - started
    _report(config, source, result, seconds)
    outcomes = {
        episode.number: (plan.success or {}).get(episode.number, episode.success)
        for episode in source.episodes
        if episode.number not in result.bad
    }
    unknown = unknown_outcomes(outcomes, config.success)
    if unknown:
        say(unknown)
    if config.out:
        output = OutputFolder(config.out, config)
        output.write_metrics(
            {
                "episodes_added": result.added,
                "episodes_skipped": result.skipped,
                "episodes_relabelled": result.relabelled,
                "episodes_bad": len(result.bad),
                "episodes_copied": len(result.copies),
                "episodes_of_unknown_success": sum(outcome is None for outcome in outcomes.values()),
                "frames_added": result.frames,
                "seconds": seconds,
                "bad": {str(number): reason for number, reason in result.bad.items()},
                "copies": {str(number): other for number, other in result.copies.items()},
                "notes": [*source.notes, *result.notes],
            }
        )
        output.announce()
    if not plan.labels:
        say(
            "no episode has stage labels: type this command again with stages=FILE relabel=true to add them, or train "
            "reward=hop, which needs none"
        )
    say_next("doctor", store=config.store)
    return result


def _report(config: ImportConfig, source: Source, result: ImportResult, seconds: float) -> None:
    """Say what was added, what was left out and why, and what the user should know of how the source was read."""
    already = f", {result.skipped} were there already" if result.skipped else ""
    say(f"{config.store}: {result.added} episodes, {result.frames} frames added in {seconds:.1f} s{already}")
    if result.relabelled:
        say(f"{result.relabelled} of these were relabelled; previous labels stay in the history")
    if result.differing:
        counts = ", ".join(f"{what} of {number}" for what, number in result.differing.items())
        say(f"of these, the store says otherwise than this command ({counts}); relabel=true replaces what it says")
    for number, reason in result.bad.items():
        say(f"episode {number} was left out: {reason}")
    for number, other in result.copies.items():
        say(f"episode {number} was left out: it is a copy of episode {other}")
    for note in (*source.notes, *result.notes[:_LISTED]):
        say(f"note: {note}")
    if len(result.notes) > _LISTED:
        say(f"and {len(result.notes) - _LISTED} more notes; out=DIR keeps all of them in metrics.json")
