"""What the metrics of a reward model's training are, as train-reward prints them."""

from __future__ import annotations

from collections.abc import Mapping

MEANINGS = {
    "mse": "mean squared error of progress, on episodes that did not fail; 0 is best",
    "mae": "mean absolute error of progress, on episodes that did not fail; 0 is best",
    "voc": "rank correlation of progress with time, on episodes that did not fail; 1 is best",
    "stage_accuracy": "frames whose stage is right, on episodes that did not fail",
    "auroc": "chance that a success ends at higher progress than a failure; 0.5 is guessing",
    "hallucination": "frames of failures whose predicted stage is beyond the true one, 0 is best",
    "loss": "training loss at the end",
    "steps": "training steps done",
    "planned_steps": "steps that the budget allows",
    "best_step": "step whose weights were kept, by the validation episodes",
    "ended_by": "what ended the training",
    "train_seconds": "time in training, s",
    "supervised_frames_per_second": "training frames a second",
    "train_episodes": "episodes learned from",
    "holdout_episodes": "episodes held out, on which the upper rows are measured",
}


def why_missing(metrics: Mapping[str, object]) -> dict[str, str]:
    """Why a metric on the held-out episodes may be absent, by its name."""
    if not metrics.get("holdout_episodes"):
        return dict.fromkeys(MEANINGS, "nothing held out")
    successes = dict.fromkeys(("mse", "mae", "voc", "stage_accuracy"), "no labelled episodes without failure held out")
    return {**successes, "auroc": "needs successes and failures held out", "hallucination": "no failures held out"}
