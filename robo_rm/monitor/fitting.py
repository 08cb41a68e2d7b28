"""Fit the monitor to successful runs that the model has not seen, and measure it on runs that took no part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robo_core.console import progress_bar, say
from robo_core.errors import ConfigError
from robo_rm.evaluation.evaluate import SIMULATOR_PROGRESS, choose_episodes
from robo_rm.labels.outcomes import HOW_TO_MARK
from robo_rm.metrics import exact_interval
from robo_rm.monitor.conformal import fewest_runs, level_for
from robo_rm.monitor.images import ImageModel
from robo_rm.monitor.promise import MonitorCalibration
from robo_rm.monitor.scores import RunScores, ScoreSettings
from robo_rm.monitor.watch import DONE, ON_TRACK, MonitoredRun
from robo_rm.reward_models.protocol import RewardModel
from robo_rm.scoring import check_model_fits

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Episode

DEFAULT_DONE = 0.97
_IMAGES = 2000
"""Images of training that the image model is fitted to, per camera."""


@dataclass(frozen=True)
class Watched:
    """One episode as the monitor meets it."""

    uuid: str
    success: bool
    time: npt.NDArray[np.float64]
    """(T,) s from its start."""
    progress: npt.NDArray[np.float64]
    uncertainty: npt.NDArray[np.float64]
    unfamiliar: npt.NDArray[np.float64]
    """(T,) distance of the images from those of training; zeros where they are not compared."""
    onset: float | None
    """When true progress rose for the last time, s; None where the store does not say."""


@dataclass(frozen=True)
class Outcome:
    """What the monitor did with one episode; times in s from its start."""

    success: bool
    alarm_at: float | None
    done_at: float | None
    state: str
    onset: float | None
    length: float


def fit_monitor(
    model: RewardModel,
    store: DemoStore,
    rates: Sequence[float] = (0.01, 0.05),
    fraction: float = 0.5,
    seed: int = 0,
    use_images: bool = True,
    training_store: DemoStore | None = None,
) -> MonitorCalibration:
    """Calibrate on a fraction of the unseen successful episodes; the other unseen ones measure what it is worth.

    Args:
        model: the reward model.
        store: episodes with known outcome that the model was not trained on.
        rates: rates of false alarms to offer, each in (0, 1).
        fraction: of the unseen successful (and failed) episodes that calibrate, in (0, 1]; 1 measures nothing.
        seed: of the choice.
        use_images: compare images with those of the episodes that the model was trained on, where they are in
            ``training_store``.
        training_store: the store that the model was trained on; ``store`` where it is not given.

    Raises:
        ConfigError: a rate or fraction is out of range, or there are too few successful runs for every rate.
        ModelError, StoreError: the model does not fit the store, or has seen all of it.
    """
    rates = sorted(set(rates))
    if not rates or any(not 0 < rate < 1 for rate in rates):
        raise ConfigError(f"rates={list(rates)}: give rates of false alarms between 0 and 1, for example [0.01,0.05]")
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction={fraction}: give a fraction above 0 and up to 1")
    check_model_fits(model, store)
    images = image_model(model, training_store or store, seed) if use_images else None
    unseen = choose_episodes(model, store)[0]
    outcomes = {uuid: store.episode(uuid).success for uuid in unseen}
    known = list(outcomes.values())
    _check_enough(known.count(True), rates, fraction, known.count(None))
    if None in known:
        say(
            f"warning: {known.count(None)} of {len(known)} unseen episodes have no outcome (success) and are left out; "
            f"{HOW_TO_MARK}"
        )
    runs = []
    with progress_bar("predict", total=len(unseen), unit="episodes") as bar:
        for uuid, outcome in outcomes.items():
            if outcome is not None:
                runs.append(watch(model, store, uuid, images))
            bar.advance()
    return fit_runs(runs, rates, float(store.fps), images, fraction, seed)


def fit_runs(
    runs: Sequence[Watched],
    rates: Sequence[float],
    rate_hz: float,
    images: ImageModel | None = None,
    fraction: float = 0.5,
    seed: int = 0,
) -> MonitorCalibration:
    """The calibration and its measurement from runs with known outcome; see `fit_monitor`.

    Raises:
        ConfigError: too few successful runs for every rate.
    """
    rates = sorted(set(rates))
    successes, failures = ([run for run in runs if run.success is outcome] for outcome in (True, False))
    _check_enough(len(successes), rates, fraction)
    fitted, rest = _divide(successes, fraction, seed)
    fitted_failures, rest_failures = _divide(failures, fraction, seed)
    settings = ScoreSettings()
    done_level, done_rate = _done([scores_of(run, rate_hz, settings).best for run in fitted_failures], rates, settings)
    calibration = MonitorCalibration(
        [scores_of(run, rate_hz, settings).values.tolist() for run in fitted],
        rates,
        done_level,
        done_rate,
        rate_hz,
        settings,
        [run.uuid for run in fitted],
        images=images,
    )
    outcomes = [follow(run, calibration) for run in [*rest, *rest_failures]]
    return replace(calibration, measured=measure(calibration, outcomes, len(fitted_failures)))


def watch(model: RewardModel, store: DemoStore, uuid: str, images: ImageModel | None) -> Watched:
    """Predict one episode, and take from the store what else the monitor needs."""
    episode = store.episode(uuid)
    guess = model.predict(episode)
    stamps = np.asarray(episode.timestamp, dtype=np.float64)
    strange = np.zeros(episode.length)
    if images is not None:
        frames = {camera: episode[camera][:] for camera in images.cameras}
        moments = range(episode.length)
        strange[:] = [images.distance({camera: frames[camera][t] for camera in frames}) for t in moments]
    return Watched(
        uuid,
        episode.success is True,
        stamps - stamps[0],
        guess.progress.astype(np.float64),
        guess.uncertainty.astype(np.float64),
        strange,
        _onset(episode, stamps - stamps[0]),
    )


def scores_of(run: Watched, rate_hz: float, settings: ScoreSettings) -> RunScores:
    """The scores of a whole run."""
    scores = RunScores(rate_hz, settings)
    for estimate in zip(run.time, run.progress, run.uncertainty, run.unfamiliar, strict=True):
        scores.update(*map(float, estimate))
    return scores


def follow(run: Watched, calibration: MonitorCalibration) -> dict[float, Outcome]:
    """What the monitor says of a run, at each promised rate."""
    found = {}
    for rate in calibration.promised():
        monitored = MonitoredRun(calibration, rate)
        alarm_at = done_at = None
        state = ON_TRACK
        for moment, *numbers in zip(run.time, run.progress, run.uncertainty, run.unfamiliar, strict=True):
            verdict = monitored.update_measured(float(moment), *map(float, numbers))
            if verdict.state == DONE:
                done_at = float(moment) if done_at is None else done_at
            elif verdict.state != ON_TRACK and alarm_at is None:
                alarm_at, state = float(moment), verdict.state
        found[rate] = Outcome(run.success, alarm_at, done_at, state, run.onset, float(run.time[-1]))
    return found


def measure(
    calibration: MonitorCalibration, outcomes: Sequence[dict[float, Outcome]], fitted_failures: int
) -> dict[str, float | None]:
    """Counts and metrics of runs that took no part, flat, with 95 % Clopper-Pearson intervals for fractions."""
    metrics: dict[str, float | None] = {"runs_fitted": len(calibration.runs), "failures_fitted": fitted_failures}
    for rate in calibration.promised():
        name = f"at_{rate:g}"
        good = [outcome[rate] for outcome in outcomes if outcome[rate].success]
        bad = [outcome[rate] for outcome in outcomes if not outcome[rate].success]
        metrics |= {"successes": len(good), "failures": len(bad)}
        metrics |= _fraction(f"false_alarms_{name}", [run.alarm_at is not None for run in good])
        metrics |= _fraction(f"detected_{name}", [run.alarm_at is not None for run in bad])
        metrics |= {
            f"{state}_{name}": sum(run.state == state for run in bad) for state in ("stalled", "failing", "unknown")
        }
        delays = [run.alarm_at - run.onset for run in bad if run.alarm_at is not None and run.onset is not None]
        before_end = [run.length - run.alarm_at for run in bad if run.alarm_at is not None]
        metrics[f"delay_median_s_{name}"] = float(np.median(delays)) if delays else None
        metrics[f"before_end_median_s_{name}"] = float(np.median(before_end)) if before_end else None
        metrics |= _fraction("done_on_successes", [run.done_at is not None for run in good])
        metrics |= _fraction("done_on_failures", [run.done_at is not None for run in bad])
    return metrics


def _fraction(name: str, flags: Sequence[bool]) -> dict[str, float | None]:
    _, low, high = exact_interval(sum(flags), len(flags))
    value = sum(flags) / len(flags) if flags else None
    return {name: value, f"{name}_count": sum(flags), f"{name}_low": low, f"{name}_high": high}


def _check_enough(successes: int, rates: Sequence[float], fraction: float, unknown: int = 0) -> None:
    count, rate = round(fraction * successes), max(rates)
    if count < fewest_runs(rate):
        reachable = f", or accept rates=[{np.ceil(100 / (count + 1)) / 100:g}]" if count else ""
        unmarked = f" ({unknown} unseen episodes have no outcome: {HOW_TO_MARK})" if unknown else ""
        raise ConfigError(
            f"no promise can be made: a rate of {rate:g} needs {fewest_runs(rate)} successful runs that the model has "
            f"not seen, here {count} of {successes} calibrate (fraction={fraction:g}){unmarked}; record more or "
            f"give a larger fraction{reachable}"
        )


def _divide(runs: Sequence[Watched], fraction: float, seed: int) -> tuple[list[Watched], list[Watched]]:
    """(calibrate, measure): drawn by name, so that the order in a store does not matter."""
    named = sorted(runs, key=lambda run: run.uuid)
    order = np.random.default_rng(seed).permutation(len(named))
    chosen = set(order[: round(fraction * len(named))].tolist())
    return [run for i, run in enumerate(named) if i in chosen], [run for i, run in enumerate(named) if i not in chosen]


def _done(best: Sequence[float], rates: Sequence[float], settings: ScoreSettings) -> tuple[float, float | None]:
    """The level above which a run is called done: failed runs stay below it with the largest rate that is offered."""
    level = level_for(np.array(best, dtype=np.float64), max(rates))
    return (DEFAULT_DONE, None) if level is None else (max(level, settings.nearly_done), max(rates))


def image_model(model: RewardModel, store: DemoStore, seed: int) -> ImageModel | None:
    """A image model of the episodes that trained the reward model; None where too few of them are in the store."""
    trained = set(model.provenance.get("train_uuids", ()))
    episodes = [store.episode(uuid) for uuid in sorted(store.uuids) if uuid in trained]
    total = sum(episode.length for episode in episodes)
    if not total or not model.cameras:
        return None
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:_IMAGES])
    frames: dict[str, list[npt.NDArray[np.uint8]]] = {camera: [] for camera in model.cameras}
    start = 0
    for episode in episodes:
        inside = chosen[(chosen >= start) & (chosen < start + episode.length)] - start
        start += episode.length
        for camera in model.cameras:
            frames[camera] += list(episode[camera][inside.tolist()]) if len(inside) else []
    return ImageModel.fit(frames)


def _onset(episode: Episode, time: npt.NDArray[np.float64]) -> float | None:
    """When the simulator's progress rose for the last time; the store's stages where it has no such progress."""
    if SIMULATOR_PROGRESS in episode:
        truth = np.asarray(episode[SIMULATOR_PROGRESS][:], dtype=np.float64).reshape(len(time), -1)[:, 0]
    else:
        truth = np.asarray(episode.stage, dtype=np.float64)
        if (truth < 0).all():
            return None
    best = np.maximum.accumulate(truth)
    rises = np.flatnonzero(np.diff(best) > 1e-3)
    return float(time[rises[-1] + 1]) if len(rises) else float(time[0])
