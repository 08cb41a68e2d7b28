"""What the metrics of reinforcement learning are, as train-rl prints them."""

MEANINGS = {
    "success": "success rate in the last evaluation, without exploration",
    "best_success": "success rate in the best evaluation",
    "steps_to_50": "control steps until an evaluation reached 50 % success",
    "steps_to_90": "control steps until an evaluation reached 90 % success",
    "steps_to_95": "control steps until an evaluation reached 95 % success",
    "steps": "control steps done",
    "planned_steps": "control steps asked for",
    "ended_by": "what ended the learning",
    "macro_actions": "macro-actions done, each some control steps",
    "episodes": "episodes begun while learning",
    "seconds": "time in learning, s",
    "steps_per_second": "control steps a second",
    "training_success": "success rate of the last training episodes, with exploration",
    "training_shaped": "mean shaped reward of the last training episodes",
    "training_best": "mean highest potential of the last training episodes",
    "training_dwell": "their macro-actions spent at a potential near success",
    "training_stalled": "their macro-actions in which the potential stood still",
    "training_drift": "mean uncertainty of the potential there; 0 without an ensemble",
}
WHY_MISSING = dict.fromkeys(("steps_to_50", "steps_to_90", "steps_to_95"), "never reached")
