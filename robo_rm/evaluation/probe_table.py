"""The table of probe clips, in the same words on every page."""

from __future__ import annotations

import math

from robo_rm.evaluation.evaluate import Evaluation

ABOUT = (
    "Pause: the video stands still from its middle on. Rewind: it turns back at 60 %. Hover: it goes to and fro just "
    "before a stage would be finished. Frozen camera: images stand still, the joints go on. Wrong instruction: the "
    "model is given the instruction of another task. Shuffled: its frames "
    "come at random (not counted with the others, as no stage is true of such a video). Other names are episodes "
    "recorded to probe with."
)
COLUMNS = ("probe", "clips", "frames", "claimed beyond the truth")


def rows(evaluation: Evaluation) -> list[list[str]]:
    """(probe, clips, frames, fraction claimed) of each probe, the worst first."""
    found = sorted(evaluation.by_probe.items(), key=lambda item: -_or_zero(item[1]["claimed"]))
    return [
        [
            kind,
            f"{row['clips']:.0f}",
            f"{row['frames']:.0f}",
            "-" if math.isnan(row["claimed"]) else f"{row['claimed']:.3f}",
        ]
        for kind, row in found
    ]


def left_out(evaluation: Evaluation) -> str:
    """What was not probed, and why; empty where everything was."""
    said = [f"{name}, as {reason}" for name, reason in evaluation.probes_left_out.items()]
    return f"not probed: {'; '.join(said)}" if said else ""


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
