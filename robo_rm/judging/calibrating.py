"""Choosing calibration episodes, fitting to them, and saying on the others what it has changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_datasets.errors import ConfigError
from robo_datasets.fingerprint import fingerprint
from robo_rm import metrics
from robo_rm.judging.evaluation import choose_episodes, model_priors
from robo_rm.labels.progress import episode_segments, label_frames
from robo_rm.labels.split import split_episodes
from robo_rm.labels.tasks import priors_of
from robo_rm.models.calibration import CalibratedModel, Calibration, apply, fit_calibration
from robo_rm.models.prediction import Prediction
from robo_rm.models.protocol import RewardModel
from robo_rm.scoring import check_model_fits

FEWEST = 2


@dataclass(frozen=True)
class Calibrated:
    """A calibration and what it did."""

    calibration: Calibration
    summary: str


def calibrate(model: RewardModel, store: Any, share: float = 0.5, seed: int = 0) -> Calibrated:
    """Fit a calibration to a share of the episodes the model has not seen; an earlier one is replaced.

    Raises:
        ModelError: the model does not fit the store. StoreError: it has seen all of it.
        ConfigError: too few episodes.
    """
    plain = model.model if isinstance(model, CalibratedModel) else model
    check_model_fits(plain, store)
    priors = model_priors(plain)
    unseen = [store.episode(uuid) for uuid in choose_episodes(plain, store, advice="")[0]]
    count = max(1, round(share * len(unseen)))
    if count < FEWEST:
        raise ConfigError(f"only {count} of {len(unseen)} unseen episodes would calibrate; give more, or share=1")
    # The same stratified draw that holds episodes out: successes and failures in proportion.
    rest, chosen = split_episodes(unseen, count, seed) if count < len(unseen) else ([], unseen)
    parts = [_look(plain, episode, priors) for episode in chosen]
    guesses, stages, labels = [p[0] for p in parts], [p[1] for p in parts], [p[2] for p in parts]
    outcomes = [episode.success for episode in chosen]
    uuids = [episode.uuid for episode in chosen]
    calibration = fit_calibration(
        guesses, stages, labels, outcomes, uuids, [fingerprint(store, uuid) for uuid in uuids]
    )
    return Calibrated(calibration, _told(calibration, [_look(plain, episode, priors) for episode in rest]))


Looked = tuple[Prediction, npt.NDArray[np.int64], npt.NDArray[np.float32]]


def _look(model: RewardModel, episode: Any, priors: npt.NDArray[np.float64]) -> Looked:
    own = priors_of({"priors": priors, **model.provenance}, episode.task)
    truth = label_frames(episode_segments(episode, len(own)), own, episode.length, f"episode {episode.uuid}")
    failed = episode.success is False
    label = np.where(truth.complete & (not failed), truth.progress, np.float32(np.nan))
    return model.predict(episode), truth.stage, label


def _told(calibration: Calibration, rest: list[Looked]) -> str:
    told = f"temperature {calibration.temperature:.2f}"
    if calibration.success is None:
        told += ", success not calibrated for want of both outcomes"
    if not rest:
        return told
    before, after = _figures(rest), _figures([(apply(calibration, guess), *truth) for guess, *truth in rest])
    return f"{told}; on the {len(rest)} others " + ", ".join(
        f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in before
    )


def _figures(looked: list[Any]) -> dict[str, float]:
    guess = np.concatenate([g.progress for g, _, _ in looked])
    label = np.concatenate([label for _, _, label in looked])
    stage = np.concatenate([stage for _, stage, _ in looked])
    chances = np.concatenate([g.stage_probabilities for g, _, _ in looked])[stage >= 0]
    correct = (chances.argmax(axis=1) == stage[stage >= 0]).astype(np.float64)
    ece = metrics.expected_calibration_error(chances.max(axis=1), correct)
    return {"mse": metrics.mse(guess, label), "ece_stage": ece}
