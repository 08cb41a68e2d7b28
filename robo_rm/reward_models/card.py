"""The model card: what a reward model is and what it can be asked, for people, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robo_rm.reward_models.protocol import RewardModel


def plain_card(model: RewardModel, name: str, what: str) -> str:
    """The card of a reward model in a few lines: ``name`` of its kind and ``what`` it is."""
    reads = [*model.cameras, *([model.state_key] if model.state_key else [])]
    parts = [
        f"# Reward model ({name})",
        "",
        f"What it is: {what}.",
        "",
        f"It reads {', '.join(reads)}, never a later frame.",
        "",
        "## Where it comes from",
        "",
        *(f"- {key}: {short(value)}" for key, value in model.provenance.items() if key not in ("figures", "contents")),
        *cut_off(model.provenance),
        *held_out(model.provenance),
        "",
        "Measure it on your own scene before you rely on it (`robo-rm eval-reward`).",
    ]
    return "\n".join(parts) + "\n"


def held_out(provenance: Mapping[str, Any]) -> list[str]:
    """The table of the metrics that training put into the provenance."""
    figures = provenance.get("figures")
    if not figures:
        return []
    head = ["", "## Figures on held-out episodes", "", "| figure | value |", "|---|---|"]
    return [*head, *(f"| {name} | {number(value)} |" for name, value in figures.items())]


def cut_off(provenance: Mapping[str, Any]) -> list[str]:
    """Lines about a training that its cap in minutes ended."""
    if provenance.get("ended_by") != "minutes":
        return []
    return [
        "",
        f"Training was cut off by `minutes` at step {provenance['steps']} of {provenance['planned_steps']}: the speed "
        "of the machine decided what came out, and the same command elsewhere gives another model.",
    ]


def short(value: Any) -> str:
    """A value of the provenance in a line."""
    if isinstance(value, list) and value and isinstance(value[0], str) and len(value) > 4:
        return f"{len(value)} episodes"
    if isinstance(value, list):
        return ", ".join(number(item) for item in value) or "none"
    return number(value)


def number(value: Any) -> str:
    """A number as people read it; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
