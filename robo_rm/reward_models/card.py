"""The model card: what a reward model is and what it can be asked, for people, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robo_rm.reward_models.base import RewardModel
    from robo_rm.reward_models.stage.model import StageRewardModel


def stage_model_card(model: StageRewardModel) -> str:
    """The card of a stage-aware model; figures are shown where training put them into the provenance."""
    description, provenance = model.description, model.provenance
    shape = description.shape
    parts = [
        "# Reward model (stage-aware progress)",
        "",
        f"Task: {(description.task or 'not named').rstrip('.')}.",
        "",
        "| stage | share of the task |",
        "|---|---|",
        *(f"| {name} | {share:.3f} |" for name, share in zip(model.stages, model.priors, strict=True)),
        *_other_head(model),
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
        *(f"- {name}: {_short(value)}" for name, value in provenance.items() if name not in ("figures", "contents")),
        *cut_off(provenance),
    ]
    figures = provenance.get("figures")
    if figures:
        parts += ["", "## Figures on held-out episodes", "", "| figure | value |", "|---|---|"]
        parts += [f"| {name} | {_number(value)} |" for name, value in figures.items()]
    parts += [
        "",
        "It knows the scene, cameras, robot and objects of its training store. On others, measure it first "
        "(`robo-rm eval-reward`).",
    ]
    return "\n".join(parts) + "\n"


def _other_head(model: StageRewardModel) -> list[str]:
    """A line where the model has a second pair of heads."""
    sparse = model.description.sparse
    if sparse is None:
        return []
    others = model.description.stages if model.head == "sparse" else list(sparse.groups)
    return ["", f"These are its {model.head} stages; it has a second head for: {'; '.join(others)}."]


def plain_card(model: RewardModel, name: str, what: str) -> str:
    """The card of a reward model in a few lines: ``name`` of its kind and ``what`` it is."""
    figures = model.provenance.get("figures") or {}
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
        *(f"- {key}: {_short(value)}" for key, value in model.provenance.items() if key not in ("figures", "contents")),
        *cut_off(model.provenance),
    ]
    if figures:
        parts += ["", "## Figures on held-out episodes", "", "| figure | value |", "|---|---|"]
        parts += [f"| {key} | {_number(value)} |" for key, value in figures.items()]
    parts += ["", "Measure it on your own scene before you rely on it (`robo-rm eval-reward`)."]
    return "\n".join(parts) + "\n"


def cut_off(provenance: Mapping[str, Any]) -> list[str]:
    """Lines about a training that its cap in minutes ended."""
    if provenance.get("ended_by") != "minutes":
        return []
    return [
        "",
        f"Training was cut off by `minutes` at step {provenance['steps']} of {provenance['planned_steps']}: the speed "
        "of the machine decided what came out, and the same command elsewhere gives another model.",
    ]


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], str) and len(value) > 4:
        return f"{len(value)} episodes"
    if isinstance(value, list):
        return ", ".join(_number(item) for item in value) or "none"
    return _number(value)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
