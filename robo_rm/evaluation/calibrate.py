"""Choosing calibration episodes, fitting to them, and measuring on the others what it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, StoreError
from robo_datasets.store.fingerprint import fingerprint
from robo_rm import metrics
from robo_rm.evaluation.evaluate import choose_episodes, model_priors
from robo_rm.evaluation.support import counted
from robo_rm.labels.outcomes import HOW_TO_MARK
from robo_rm.labels.progress import stored_labels
from robo_rm.labels.split import split_episodes
from robo_rm.labels.tasks import priors_of
from robo_rm.reward_models.calibration import CalibratedModel, Calibration, apply, fit_calibration
from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.protocol import RewardModel
from robo_rm.scoring import check_model_fits

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Episode

FEWEST = 2
FEW = 20


@dataclass(frozen=True)
class Calibrated:
    """A calibration and what it did."""

    calibration: Calibration
    summary: str


def calibrate(model: RewardModel, store: DemoStore, fraction: float = 0.5, seed: int = 0) -> Calibrated:
    """Fit a calibration to a fraction of the episodes the model has not seen; an earlier one is replaced.

    Raises:
        ModelError: the model does not fit the store. StoreError: it has seen all of it, or nothing in it is known.
        ConfigError: too few episodes.
    """
    plain = model.model if isinstance(model, CalibratedModel) else model
    check_model_fits(plain, store)
    priors = model_priors(plain)
    unseen = [store.episode(uuid) for uuid in choose_episodes(plain, store, advice="")[0]]
    count = max(1, round(fraction * len(unseen)))
    if count < FEWEST:
        raise ConfigError(
            f"fraction={fraction:g} of {counted(len(unseen), 'unseen episodes')} is {count}, and at least {FEWEST} are "
            "needed; give a store with more, or fraction=1"
        )
    # The same stratified draw that holds episodes out: successes and failures in proportion.
    rest, chosen = split_episodes(unseen, count, seed) if count < len(unseen) else ([], unseen)
    parts = [_observe(plain, episode, priors) for episode in chosen]
    guesses, stages, labels = [p[0] for p in parts], [p[1] for p in parts], [p[2] for p in parts]
    outcomes = [episode.success for episode in chosen]
    measured = sum(bool(np.isfinite(label).any()) for label in labels)
    known = sum(bool((stage >= 0).any()) for stage in stages)
    if not known and len(set(outcomes) - {None}) < 2:
        raise StoreError(
            f"none of the {len(chosen)} episodes of {store.path} to calibrate with has stage labels, and not both "
            "outcomes are known; label stages with store.set_stages, or mark them with store.set_success"
        )
    uuids = [episode.uuid for episode in chosen]
    calibration = fit_calibration(
        guesses, stages, labels, outcomes, uuids, [dict(fingerprint(store, uuid)) for uuid in uuids]
    )
    fitted = _fitted(calibration, known, measured, outcomes)
    return Calibrated(
        calibration, fitted + _changed(calibration, [_observe(plain, episode, priors) for episode in rest])
    )


Observed = tuple[Prediction, npt.NDArray[np.int64], npt.NDArray[np.float32]]


def _observe(model: RewardModel, episode: Episode, priors: npt.NDArray[np.float64]) -> Observed:
    own = priors_of({"priors": priors, **model.provenance}, episode.task)
    truth = stored_labels(episode, own)
    failed = episode.success is False
    label = np.where(truth.complete & (not failed), truth.progress, np.float32(np.nan))
    return model.predict(episode), truth.stage, label


def _fitted(calibration: Calibration, known: int, measured: int, outcomes: list[bool | None]) -> str:
    """What was fitted, to how many episodes, and what was not and why."""
    good, bad = sum(outcome is True for outcome in outcomes), sum(outcome is False for outcome in outcomes)
    notes = [
        f"temperature {calibration.temperature:.2f} from {counted(known, 'labelled episodes')}"
        if known
        else "stages not calibrated for want of stage labels",
        f"progress from {counted(measured, 'episodes that did not fail')}"
        if calibration.progress is not None
        else "progress not calibrated, as no stage was finished in an episode that did not fail",
        f"success from {counted(good, 'successes')} and {counted(bad, 'failures')}"
        if calibration.success is not None
        else f"success not calibrated for want of both outcomes ({counted(good, 'successes')}, "
        f"{counted(bad, 'failures')}, {len(outcomes) - good - bad} unknown)",
    ]
    unknown = len(outcomes) - good - bad
    if unknown and calibration.success is not None:
        notes.append(f"{counted(unknown, 'episodes')} of unknown outcome left out of the latter")
    if unknown:
        notes.append(HOW_TO_MARK)
    few = f"; {len(outcomes)} episodes are few, so it may have fitted noise" if len(outcomes) < FEW else ""
    return ", ".join(notes) + few


def _changed(calibration: Calibration, rest: list[Observed]) -> str:
    """What the calibration changes on the episodes that were not fitted; says where nothing can be said."""
    if not rest:
        return "; none is left to say what it changes"
    before, after = (
        _metrics_of(rest),
        _metrics_of([(apply(calibration, guess), stage, label) for guess, stage, label in rest]),
    )
    notes = [f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in before if np.isfinite(before[name])]
    return f"; on {counted(len(rest), 'other episodes')} " + (
        ", ".join(notes) or "nothing is labelled to measure it on"
    )


def _metrics_of(observed: list[Observed]) -> dict[str, float]:
    guess = np.concatenate([g.progress for g, _, _ in observed])
    label = np.concatenate([label for _, _, label in observed])
    stage = np.concatenate([stage for _, stage, _ in observed])
    chances = np.concatenate([g.stage_probabilities for g, _, _ in observed])[stage >= 0]
    correct = (chances.argmax(axis=1) == stage[stage >= 0]).astype(np.float64)
    ece = metrics.expected_calibration_error(chances.max(axis=1), correct)
    return {"mse": metrics.mse(guess, label), "ece_stage": ece}
