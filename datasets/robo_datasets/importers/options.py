"""What import commands share: frame size, stage annotation and success from the user's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from robo_core.errors import ConfigError
from robo_datasets.importers.image_config import ImageConfig
from robo_datasets.importers.images import ImageSettings
from robo_datasets.importers.run import ImportPlan
from robo_datasets.importers.source import Source
from robo_datasets.importers.stage_files import Segment, check_names, frame_labels, read_stage_file, stage_order
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.layout import GROUP_FILE

_SUCCESS = {"true": True, "false": False, "unknown": None}


def frame_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """A (height, width) setting, checked.

    Raises:
        ConfigError: it is not two whole numbers from 1 up.
    """
    if size is None:
        return None
    if len(size) != 2 or any(side < 1 or side > 1 << 14 for side in size):
        raise ConfigError(f"size={list(size)} must be height and width, for example size=[240,320]")
    return int(size[0]), int(size[1])


def image_settings(config: ImageConfig) -> ImageSettings:
    """What the user says of images, checked.

    Raises:
        ConfigError: a value is not one of those known.
    """
    return ImageSettings(config.flip, config.colours, config.image_scale, config.layout, config.depth_unit)


def plan_import(
    source: Source,
    store: str | os.PathLike[str],
    stages: str = "",
    stage_names: Sequence[str] | None = None,
    success: str = "auto",
) -> ImportPlan:
    """Stage labels and success for every episode of a source.

    Args:
        source: the dataset.
        store: path of the store; where it exists, its stages are the known ones.
        stages: annotation file, or "" for what the source itself carries.
        stage_names: the known stages in order.
        success: "true", "false", "unknown", or "auto": what the source says of an episode, else false where its
            annotation ends before the task's last stage, else unknown.

    Raises:
        LabelError: the annotation does not fit the source, or names a stage that is not known.
        ConfigError: ``success`` is none of these words.
    """
    if success not in ("auto", *_SUCCESS):
        raise ConfigError(f"success={success} is not one of: auto, true, false, unknown")
    lengths = {episode.number: episode.length for episode in source.episodes}
    segments: Mapping[int, Sequence[Segment]]
    if stages:
        segments = read_stage_file(stages, lengths)
    else:
        segments = {episode.number: episode.segments for episode in source.episodes if episode.segments}
    names = stage_order(segments, lengths) if stage_names is None else list(stage_names)
    if stage_names is not None:
        check_names(segments, names, stages or str(source.path))
    if segments and (Path(store) / GROUP_FILE).exists():
        known = DemoStore.open(store).stages or names  # a store without stages takes those of its first annotation
        check_names(segments, known, stages or str(source.path))
        names = [name for name in known if name in names]
    labels = {number: frame_labels(found, lengths[number], names) for number, found in segments.items()}
    outcome: dict[int, bool | None] = {}
    for episode in source.episodes:
        if success != "auto":
            outcome[episode.number] = _SUCCESS[success]
        elif episode.success is not None:
            outcome[episode.number] = episode.success
        else:
            # A task that was given up before its last stage failed; one that was gone through may still have.
            found = segments.get(episode.number)
            outcome[episode.number] = False if found and found[-1][0] != names[-1] else None
    return ImportPlan(names, labels, outcome, success == "auto")


def unknown_outcomes(success: Mapping[int, bool | None], wanted: str) -> str:
    """What to report to the user about episodes whose outcome nobody said; empty where there is nothing to report.

    Args:
        success: the plan's outcomes by episode number.
        wanted: the setting ``success``.
    """
    unknown = sum(outcome is None for outcome in success.values())
    if wanted != "auto" or not unknown:
        return ""
    return (
        f"nothing in the data says whether {unknown} of {len(success)} episodes succeeded: their success is unknown. "
        "They train reward models and policies like demonstrations (stages decide what is learned); "
        "weights=success_only, calibrate and all metrics of success versus failure leave them out. Where all of them "
        "succeeded, say success=true"
    )
