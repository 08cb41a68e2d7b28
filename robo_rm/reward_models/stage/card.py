"""The model card of a stage-aware model, for people, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robo_rm.reward_models.card import cut_off, held_out, short
from robo_rm.reward_models.stage.description import StageDescription


def stage_model_card(
    description: StageDescription, provenance: Mapping[str, Any], stages: Sequence[str], priors: Sequence[float]
) -> str:
    """The card of a model that shows ``stages`` with their ``priors`` (K,)."""
    shape = description.shape
    parts = [
        "# Reward model (stage-aware progress)",
        "",
        f"Task: {(description.task or 'not named').rstrip('.')}.",
        "",
        "| stage | share of the task |",
        "|---|---|",
        *(f"| {name} | {share:.3f} |" for name, share in zip(stages, priors, strict=True)),
        *_other_head(description),
        "",
        "## What it looks at",
        "",
        *(f"- {key}, at {h} x {w} pixels" for key, (h, w) in description.cameras.items()),
        f"- {description.state_key} ({description.state_size} values)" if description.state_key else "- no joint state",
        f"- the episode's first frame, the newest one and up to {shape.history} past ones, {shape.gap} frames apart, "
        f"at {description.fps:g} frames/s; never a later one",
        "",
        "## What it says",
        "",
        "Progress in [0, 1], stage probabilities, and an uncertainty: the standard deviation of progress "
        "under the stage distribution. It is large where the model hesitates between stages that lie far "
        "apart; errors within a stage do not show in it.",
        "",
        "## Where it comes from",
        "",
        *(f"- {name}: {short(value)}" for name, value in provenance.items() if name not in ("figures", "contents")),
        *cut_off(provenance),
        *held_out(provenance),
        "",
        "It knows the scene, cameras, robot and objects of its training store. On others, measure it first "
        "(`robo-rm eval-reward`).",
    ]
    return "\n".join(parts) + "\n"


def _other_head(description: StageDescription) -> list[str]:
    """A line where the model has a second pair of heads."""
    sparse = description.sparse
    if sparse is None:
        return []
    others = description.stages if description.head == "sparse" else list(sparse.groups)
    return ["", f"These are its {description.head} stages; it has a second head for: {'; '.join(others)}."]
