"""What the metrics of a policy's training are, as train-policy prints them."""

MEANINGS = {
    "holdout_action_l1": "mean absolute error of the actions on held-out frames, in their own units",
    "holdout_action_l1_normalised": "the same, each joint divided by its deviation over the training frames",
    "holdout_action_l1_executed": "normalised, over the part of each chunk that is carried out",
    "holdout_action_l1_weighted": "normalised, frames weighted as in training",
    "holdout_frames": "held-out frames that the errors are measured on",
    "loss": "weighted training loss, mean over the last twentieth of the steps",
    "steps": "training steps done",
    "planned_steps": "steps that the budget allows",
    "ended_by": "what ended the training",
    "frames": "frames of the demonstrations",
    "frames_used": "frames with a weight above 0",
    "effective_samples": "as many frames of equal weight say as much: (sum w)^2 / sum w^2",
    "samples_per_second": "training samples a second",
    "seconds": "time in training, s",
}
