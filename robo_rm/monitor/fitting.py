"""Fit the monitor to successful runs that the model has not seen, and measure it on runs that took no part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_datasets.errors import ConfigError
from robo_rm.judging.evaluation import SIMULATOR_PROGRESS, choose_episodes
from robo_rm.models.protocol import RewardModel
from robo_rm.monitor.conformal import fewest_runs, level_for
from robo_rm.monitor.pictures import PictureModel
from robo_rm.monitor.promise import MonitorCalibration
from robo_rm.monitor.scores import SCORES, RunScores, ScoreSettings
from robo_rm.monitor.watch import DONE, ON_TRACK, MonitoredRun
from robo_rm.scoring import check_model_fits

DEFAULT_DONE = 0.97
_PICTURES = 2000
"""Pictures of training that the picture model is fitted to, per camera."""


@dataclass(frozen=True)
class Watched:
    """One episode as the monitor meets it."""

    uuid: str
    success: bool
    time: npt.NDArray[np.float64]
    """(T,) s from its start."""
    progress: npt.NDArray[np.float64]
    uncertainty: npt.NDArray[np.float64]
    pictures: list[dict[str, npt.NDArray[np.uint8]]] | None
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
    store: Any,
    rates: Sequence[float] = (0.01, 0.05),
    fraction: float = 0.5,
    seed: int = 0,
    use_pictures: bool = True,
) -> MonitorCalibration:
    """Calibrate on a fraction of the unseen successful episodes; the other unseen ones measure what it is worth.

    Args:
        model: the reward model.
        store: episodes with known outcome that the model was not trained on.
        rates: rates of false alarms to offer, each in (0, 1).
        fraction: of the unseen successful (and failed) episodes that calibrate, in (0, 1]; 1 measures nothing.
        seed: of the choice.
        use_pictures: compare pictures with those of the episodes that the model was trained on, where they are in
            this store.

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
    unseen = choose_episodes(model, store)[0]
    successes, failures = (
        [uuid for uuid in unseen if store.episode(uuid).success is outcome] for outcome in (True, False)
    )
    fitted, rest = _divide(successes, fraction, seed)
    least = min(fewest_runs(rate) for rate in rates)
    if len(fitted) < least:
        needed = f"a rate of {max(rates):g} needs {least} successful runs"
        raise ConfigError(
            f"no promise can be made: {needed} that the model has not seen, here {len(fitted)} of {len(successes)} "
            f"calibrate (fraction={fraction:g}); record more, give a larger fraction, or accept "
            f"rates=[{_reachable(len(fitted))}]"
        )
    fitted_failures, rest_failures = _divide(failures, fraction, seed)
    rate_hz = float(store.fps)
    settings = ScoreSettings()
    pictures = _picture_model(model, store, seed) if use_pictures else None
    calibration = MonitorCalibration([], rates, DEFAULT_DONE, None, rate_hz, settings, fitted, pictures=pictures)
    runs = [scores_of(watch(model, store, uuid, pictures is not None), calibration) for uuid in fitted]
    done_level, done_rate = _done(model, store, fitted_failures, calibration)
    calibration = replace(
        calibration, runs=[run.values.tolist() for run in runs], done_level=done_level, done_rate=done_rate
    )
    outcomes = [follow(watch(model, store, uuid, pictures is not None), calibration) for uuid in rest + rest_failures]
    return replace(calibration, measured=measure(calibration, outcomes, len(fitted_failures)))


def watch(model: RewardModel, store: Any, uuid: str, with_pictures: bool) -> Watched:
    """Predict one episode, and take from the store what else the monitor needs."""
    episode = store.episode(uuid)
    guess = model.predict(episode)
    stamps = np.asarray(episode.timestamp, dtype=np.float64)
    pictures = None
    if with_pictures:
        frames = {camera: episode[camera][:] for camera in model.cameras}
        pictures = [{camera: frames[camera][t] for camera in frames} for t in range(episode.length)]
    return Watched(
        uuid,
        episode.success is True,
        stamps - stamps[0],
        guess.progress.astype(np.float64),
        guess.uncertainty.astype(np.float64),
        pictures,
        _onset(episode, stamps - stamps[0]),
    )


def scores_of(run: Watched, calibration: MonitorCalibration) -> RunScores:
    """The scores of a whole run."""
    scores = RunScores(calibration.rate_hz, calibration.settings)
    for t, moment in enumerate(run.time.tolist()):
        strange = 0.0
        if calibration.pictures is not None and run.pictures is not None:
            strange = calibration.pictures.distance(run.pictures[t])
        scores.update(moment, run.progress[t], run.uncertainty[t], strange)
    return scores


def follow(run: Watched, calibration: MonitorCalibration) -> dict[float, Outcome]:
    """What the monitor says of a run, at each promised rate."""
    found = {}
    for rate in calibration.promised():
        monitored = MonitoredRun(calibration, rate)
        alarm_at = done_at = None
        state = ON_TRACK
        for t, moment in enumerate(run.time.tolist()):
            frames = None if run.pictures is None else run.pictures[t]
            verdict = monitored.update(moment, run.progress[t], run.uncertainty[t], frames)
            if verdict.state == DONE:
                done_at = moment if done_at is None else done_at
            elif verdict.state != ON_TRACK and alarm_at is None:
                alarm_at, state = moment, verdict.state
        found[rate] = Outcome(run.success, alarm_at, done_at, state, run.onset, float(run.time[-1]))
    return found


def measure(
    calibration: MonitorCalibration, outcomes: Sequence[dict[float, Outcome]], fitted_failures: int
) -> dict[str, Any]:
    """Counts and figures of runs that took no part, flat, with 95 % Clopper-Pearson intervals for fractions."""
    figures: dict[str, Any] = {"runs_fitted": len(calibration.runs), "failures_fitted": fitted_failures}
    for rate in calibration.promised():
        name = f"at_{rate:g}"
        good = [outcome[rate] for outcome in outcomes if outcome[rate].success]
        bad = [outcome[rate] for outcome in outcomes if not outcome[rate].success]
        figures |= {"successes": len(good), "failures": len(bad)}
        figures |= _fraction(f"false_alarms_{name}", [run.alarm_at is not None for run in good])
        figures |= _fraction(f"detected_{name}", [run.alarm_at is not None for run in bad])
        figures |= {
            f"{state}_{name}": sum(run.state == state for run in bad) for state in ("stalled", "failing", "unknown")
        }
        delays = [run.alarm_at - run.onset for run in bad if run.alarm_at is not None and run.onset is not None]
        before_end = [run.length - run.alarm_at for run in bad if run.alarm_at is not None]
        figures[f"delay_median_s_{name}"] = float(np.median(delays)) if delays else None
        figures[f"before_end_median_s_{name}"] = float(np.median(before_end)) if before_end else None
        figures |= _fraction("done_on_successes", [run.done_at is not None for run in good])
        figures |= _fraction("done_on_failures", [run.done_at is not None for run in bad])
    return figures


def exact_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a fraction; (0, 1) where nothing was counted."""
    from scipy.stats import binomtest

    if total == 0:
        return 0.0, 1.0
    interval = binomtest(count, total).proportion_ci(level, "exact")
    return float(interval.low), float(interval.high)


def _fraction(name: str, flags: Sequence[bool]) -> dict[str, Any]:
    low, high = exact_interval(sum(flags), len(flags))
    value = sum(flags) / len(flags) if flags else None
    return {name: value, f"{name}_count": sum(flags), f"{name}_low": low, f"{name}_high": high}


def _divide(uuids: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """(calibrate, measure): drawn by name, so that the order in a store does not matter."""
    named = sorted(uuids)
    order = np.random.default_rng(seed).permutation(len(named))
    count = round(fraction * len(named))
    chosen = {named[index] for index in order[:count].tolist()}
    return [uuid for uuid in named if uuid in chosen], [uuid for uuid in named if uuid not in chosen]


def _reachable(runs: int) -> str:
    """The smallest rate in whole percent that so many runs can promise."""
    return f"{np.ceil(100 / (runs + 1)) / 100:g}" if runs else "..."


def _done(
    model: RewardModel, store: Any, failures: Sequence[str], calibration: MonitorCalibration
) -> tuple[float, float | None]:
    """The level above which a run is called done: failed runs stay below it with the largest rate that is offered."""
    best = [scores_of(watch(model, store, uuid, False), replace(calibration, pictures=None)).best for uuid in failures]
    rate = max(calibration.rates)
    level = level_for(np.array(best, dtype=np.float64), rate)
    if level is None:
        return DEFAULT_DONE, None
    return max(level, calibration.settings.nearly_done), rate


def _picture_model(model: RewardModel, store: Any, seed: int) -> PictureModel | None:
    trained = set(model.provenance.get("train_uuids", ()))
    episodes = [store.episode(uuid) for uuid in sorted(store.uuids) if uuid in trained]
    total = sum(episode.length for episode in episodes)
    if not total or not model.cameras:
        return None
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:_PICTURES])
    frames: dict[str, list[npt.NDArray[np.uint8]]] = {camera: [] for camera in model.cameras}
    start = 0
    for episode in episodes:
        inside = chosen[(chosen >= start) & (chosen < start + episode.length)] - start
        start += episode.length
        for camera in model.cameras:
            frames[camera] += list(episode[camera][inside.tolist()]) if len(inside) else []
    return PictureModel.fit(frames)


def _onset(episode: Any, time: npt.NDArray[np.float64]) -> float | None:
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


__all__ = ["DEFAULT_DONE", "SCORES", "Outcome", "Watched", "fit_monitor", "follow", "measure", "scores_of", "watch"]
