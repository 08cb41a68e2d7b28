"""Figures of a reward model on episodes, as training shows them; `robo-rm eval-reward` gives the full report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robo_rm import metrics
from robo_rm.labels.progress import stored_labels
from robo_rm.labels.tasks import priors_of
from robo_rm.reward_models.protocol import RewardModel


def held_out_figures(model: RewardModel, episodes: Sequence[Any]) -> dict[str, float]:
    """The main figures on stored episodes, NaN where a figure is not defined on them.

    mse, mae, voc and stage_accuracy are of the episodes that did not fail; auroc (by final progress) needs failures
    too, and hallucination is of the failures. Frames of unfinished segments have no measured progress and are left out
    of mse and mae.
    """
    progress, labels, stages, truths, wrong_guess, wrong_truth, finals, outcomes = [], [], [], [], [], [], [], []
    for episode in episodes:
        priors = priors_of(model.provenance, episode.task)
        guess = model.predict(episode)
        truth = stored_labels(episode, priors)
        if episode.success is not None:
            finals.append(float(guess.progress[-1]))
            outcomes.append(bool(episode.success))
        if episode.success is False:
            wrong_guess.append(guess.stage)
            wrong_truth.append(truth.stage)
            continue
        progress.append(guess.progress)
        labels.append(np.where(truth.complete, truth.progress, np.nan))
        stages.append(guess.stage)
        truths.append(truth.stage)
    nan = float("nan")
    return {
        "mse": metrics.mse(np.concatenate(progress), np.concatenate(labels)) if progress else nan,
        "mae": metrics.mae(np.concatenate(progress), np.concatenate(labels)) if progress else nan,
        "voc": metrics.voc(progress) if progress else nan,
        "stage_accuracy": metrics.stage_accuracy(np.concatenate(stages), np.concatenate(truths)) if stages else nan,
        "auroc": metrics.auroc(finals, outcomes) if finals else nan,
        "hallucination": metrics.hallucination(np.concatenate(wrong_guess), np.concatenate(wrong_truth))
        if wrong_guess
        else nan,
    }
