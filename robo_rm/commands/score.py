"""Score every episode of a store with a reward model, and weight its frames for cloning.

Writes the predicted progress and the weights into the store's `derived/`, each with its provenance; train-policy reads
them with weights=rabc. Prints how many frames the weights amount to, and warns where they say little. Run the same
command again to resume an interrupted run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

import robo_datasets
import robo_rm
from robo_core.cli.following import beside_store, say_next
from robo_core.console import print_table, say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder
from robo_rm import labels
from robo_rm import report as reports
from robo_rm.weights.options import Advantage, Calibration, TopFraction

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from robo_datasets import DemoStore
    from robo_rm.scoring import Scores

GROUP = "reward model"
DEFAULT_SECONDS = 0.6
# What full weight and no weight stand for, mode by mode.
MEANINGS = {
    "calibrated": ("gain more than kappa = {kappa:.4g} over the horizon", "pauses, detours, regressions"),
    "success_only": ("frames of successful episodes", "frames of all other episodes"),
    "top_fraction": ("frames of the best episodes", "frames of all other episodes"),
    "advantage": ("more gain than others as far along", "less gain than others as far along"),
}


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm score``."""

    store: str = MISSING
    """Demo store to score."""
    model: str = ""
    """Reward model folder, as train-reward wrote it."""
    head: str | None = None
    """`dense` or `sparse`, of a model that was trained with reward.sparse; the one it was saved with if not given."""
    progress_key: str = ""
    """Instead of a model: a feature of the store that holds the true progress, such as `simulator.progress`."""
    mode: str = "calibrated"
    """`calibrated`, or `paper` for SARM's equations 5-9 unmodified; for comparison `success_only`, `top_fraction`,
    `advantage`."""
    horizon: int | None = None
    """Frames to look ahead, best the part of an action chunk that the policy carries out. None: 0.6 seconds of them.
    The paper has 25."""
    kappa: float = 0.01
    """Progress per horizon that earns full weight; in calibrated mode only with calibration.quantile=null."""
    calibration: Calibration = field(default_factory=Calibration)
    """The corrections of calibrated mode; `advantage` measures with them too."""
    top: TopFraction = field(default_factory=TopFraction)
    """Which episodes mode=top_fraction keeps."""
    advantage: Advantage = field(default_factory=Advantage)
    """The classes of mode=advantage."""
    name: str = "weights"
    """Name of the set of weights in the store; train-policy reads another than `weights` with weights.name=NAME."""
    lerobot: str = ""
    """LeRobot v3.0 dataset of the same episodes: `sarm_progress.parquet` is written into it, by which plain
    `lerobot-train --sample_weighting.type=rabc` weights pi0, pi05 and SmolVLA."""
    lerobot_chunk: int | None = None
    """With lerobot: write these weights too, for a policy of LeRobot's whose chunk_size this is."""
    out: str = ""
    """Folder for metrics.json and an image of weights over example episodes; empty: none is written."""
    device: str = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> None:
    """Score the store and write the weights."""
    if bool(config.model) == bool(config.progress_key):
        raise ConfigError(
            "give model=FOLDER, or progress_key=KEY to weight by progress that the store holds"
            + (", not both" if config.model else "")
        )
    store = robo_datasets.DemoStore.open(config.store)
    horizon = max(2, round(DEFAULT_SECONDS * store.fps)) if config.horizon is None else config.horizon
    robo_rm.weights.check_settings(horizon, config.mode, config.kappa, config.calibration)
    config.top.check()
    config.advantage.check()
    _check_lerobot(config, store)
    if not re.fullmatch(r"[A-Za-z0-9_]+", config.name) or config.name == "progress":
        raise ConfigError(f"name={config.name!r}: give letters, digits and _, and not 'progress'")
    source: Mapping[str, object]
    model: Mapping[str, object] | None = None
    if config.model:
        derived, model = robo_rm.scoring.score_with(config.model, config.head, config.device, store)
        progress = {uuid: robo_rm.scoring.read_prediction(derived, uuid).progress for uuid in store.uuids}
        source = derived.provenance
    else:
        progress = robo_rm.scoring.progress_from_feature(store, config.progress_key)
        source = {"source": "feature", "key": config.progress_key}
    scores = robo_rm.scoring.score_weights(
        store,
        progress,
        source,
        mode=config.mode,
        horizon=horizon,
        kappa=config.kappa,
        calibration=config.calibration,
        top=config.top,
        advantage=config.advantage,
        name=config.name,
        model=model,
    )
    _print(scores)
    if config.lerobot:
        _write_lerobot(config, store, progress, scores.result.weights)
    if config.out:
        out = OutputFolder(config.out, config)
        _write(out, store, scores, progress)
        out.announce()
    say(f"wrote {len(store)} episodes' weights to {scores.derived.path}")
    if not scores.report.effective:
        return  # nothing to train on, which the warning says
    named = {} if config.name == "weights" else {"weights.name": config.name}
    say_next(
        "train-policy",
        store=config.store,
        weights="rabc",
        **named,
        out=beside_store(config.store, "policy"),
    )


def _check_lerobot(config: Config, store: DemoStore) -> None:
    """Refuse a dataset of other episodes before anything is predicted."""
    if config.lerobot_chunk is not None:
        if not config.lerobot:
            raise ConfigError("lerobot_chunk needs lerobot=DIR, the LeRobot dataset to write the weights into")
        robo_rm.weights.check_chunk(config.lerobot_chunk)
    if config.lerobot:
        robo_datasets.lerobot_progress.DatasetEpisodes(Path(config.lerobot)).check(
            [store.episode(uuid) for uuid in store.uuids]
        )


def _write_lerobot(
    config: Config,
    store: DemoStore,
    progress: Mapping[str, npt.NDArray[np.float32]],
    weights: Mapping[str, npt.NDArray[np.float32]],
) -> None:
    root = Path(config.lerobot)
    path = robo_rm.lerobot_files.write_lerobot_progress(store, root, progress)
    say(f"wrote {path}: lerobot-train --sample_weighting.type=rabc weights pi0, pi05 and SmolVLA by it")
    if config.lerobot_chunk is not None:
        path = robo_rm.lerobot_files.write_lerobot_weights(store, root, weights, config.lerobot_chunk, config.name)
        say(
            f"wrote {path}: for these weights add --sample_weighting.progress_path={path} "
            f"--sample_weighting.kappa={robo_rm.weights.KAPPA:g} and --policy.chunk_size={config.lerobot_chunk}"
        )


def _print(scores: Scores) -> None:
    report, statistics = scores.report, scores.result.statistics
    full, nothing = MEANINGS.get(scores.result.mode, MEANINGS["calibrated"])
    print_table(
        f"Weights, {scores.result.mode} mode, horizon {scores.result.horizon} frames",
        ["metric", "value", "what it is"],
        [
            ["frames", f"{report.frames}", f"in {len(scores.result.weights)} episodes"],
            [
                "effective frames",
                f"{report.effective:.0f}  ({report.effective / report.frames:.0%})",
                "(sum w)^2 / sum w^2: as many frames of equal weight say as much",
            ],
            ["full weight", f"{report.full:.1%}", full.format(kappa=statistics.kappa)],
            ["part weight", f"{report.fractional:.1%}", "between nothing and full"],
            ["no weight", f"{report.nothing:.1%}", nothing],
            ["mean, successes", _or_dash(report.mean_success, "none known"), _successes(scores)],
            [
                "mean, failures",
                _or_dash(report.mean_failure, "none known"),
                "mean weight in episodes marked as failures",
            ],
        ],
    )
    for warning in report.warnings:
        say(f"warning: {warning}")
    for note in _unknown(scores):
        say(note)


def _successes(scores: Scores) -> str:
    finished = scores.report.finished
    more = f", and in {finished} of unknown outcome that end in the last stage" if finished else ""
    return f"mean weight in episodes marked as successes{more}"


def _unknown(scores: Scores) -> list[str]:
    """What becomes of the episodes whose outcome nobody marked."""
    unknown, finished = scores.report.unknown, scores.report.finished
    if not unknown:
        return []
    if scores.result.mode == "success_only":
        total = len(scores.result.weights)
        return [
            f"warning: {unknown} of {total} episodes have no outcome (success) and have weight 0; {labels.HOW_TO_MARK}"
        ]
    if scores.result.mode not in ("calibrated", "advantage"):
        return []
    notes = []
    if finished:
        notes.append(
            f"{finished} episodes of unknown outcome end in the last stage of their task and count like successes"
        )
    if unknown > finished:
        notes.append(
            f"{unknown - finished} episodes of unknown outcome do not end in the last stage of their task (or have no "
            f"stage labels): their last frames are not protected; {labels.HOW_TO_MARK}"
        )
    return notes


def _or_dash(value: float, why_missing: str) -> str:
    return f"- ({why_missing})" if value != value else f"{value:.2f}"


def _write(
    out: OutputFolder, store: DemoStore, scores: Scores, progress: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    import numpy as np

    episodes = {uuid: store.episode(uuid) for uuid in store.uuids}
    kinds = {uuid: robo_rm.scoring.episode_kind(episode) for uuid, episode in episodes.items()}
    views = [
        reports.EpisodeView(
            title=f"{kinds[uuid]}, episode {uuid[:8]}",
            fps=store.fps,
            progress=progress[uuid],
            stage=np.zeros(len(progress[uuid]), np.int64),
            stages=store.stages,
            success=episodes[uuid].success,
            weights=scores.result.weights[uuid],
        )
        for uuid in robo_rm.scoring.example_episodes(scores.result, kinds)
    ]
    reports.save_image(reports.weights_figure(views), out.path("weights.png"))
    statistics = scores.result.statistics
    out.write_metrics(
        {
            **scores.report.metrics(),
            "episodes": len(scores.result.weights),
            "horizon": scores.result.horizon,
            "kappa": statistics.kappa,
            "delta_mean": statistics.mean,
            "delta_std": statistics.std,
            "mean_length": statistics.mean_length,
        }
    )
