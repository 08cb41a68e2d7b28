"""The last step of every import verb: read the source into the store, say what was added, write the figures."""

from __future__ import annotations

import time
from typing import Any

from robo_datasets.console import say
from robo_datasets.errors import ConfigError
from robo_datasets.importers.run import ImportPlan, ImportResult, import_source
from robo_datasets.importers.settings import ImportConfig
from robo_datasets.importers.source import Source
from robo_datasets.outputs import OutputFolder


def check_places(config: ImportConfig) -> None:
    """Check that source and store are named.

    Raises:
        ConfigError: one of them is not.
    """
    if not config.source or not config.store:
        raise ConfigError("give source=PATH and store=PATH")


def run_import(config: ImportConfig, source: Source, plan: ImportPlan, **options: Any) -> ImportResult:
    """Import ``source`` as ``config`` asks, print what was added, and write metrics.json where ``out`` is given.

    Args:
        config: the verb's settings.
        source: the data set.
        plan: stage labels and success.
        options: more settings of a store that is made, besides codec, quality and subsampling.

    Raises:
        ImportSourceError: the source cannot be read; the store is as it was.
        StoreError: the store has another schema or cannot be written to.
    """
    started = time.monotonic()
    settings = {"codec": config.codec, "quality": config.quality, "subsampling": config.subsampling, **options}
    result = import_source(source, config.store, plan, config.workers, config.relabel, **settings)
    seconds = time.monotonic() - started
    already = f", {result.skipped} were there already" if result.skipped else ""
    say(f"{config.store}: {result.added} episodes, {result.frames} frames added in {seconds:.1f} s{already}")
    if result.relabelled:
        say(f"{result.relabelled} of these were labelled anew; what they had stays in their history")
    if result.differing:
        say(f"{result.differing} of these have other stages than this command gives; relabel=true replaces them")
    if config.out:
        output = OutputFolder(config.out, config)
        output.write_metrics(
            {
                "episodes_added": result.added,
                "episodes_skipped": result.skipped,
                "episodes_relabelled": result.relabelled,
                "frames_added": result.frames,
                "seconds": seconds,
            }
        )
        output.announce()
    return result
