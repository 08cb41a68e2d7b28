"""The model card of a hop model, for people, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robo_rm.reward_models.card import cut_off, held_out, number
from robo_rm.reward_models.grm.description import HopDescription

_LONG = ("figures", "references", "init", "train_uuids", "holdout_uuids", "contents")


def hop_model_card(description: HopDescription, provenance: Mapping[str, Any]) -> str:
    """The card; metrics are shown where training put them into the provenance."""
    reward = description.reward
    parts = [
        "# Reward model (hops between moments)",
        "",
        *(
            f"- task: {task.rstrip('.') or 'not named'}; {count} pair{'s' * (count > 1)} of start and goal images"
            for task, count in description.references.items()
        ),
        "",
        "| stage | share of progress |",
        "|---|---|",
        *(f"| {name} | {share:.3f} |" for name, share in zip(description.stages, description.priors, strict=True)),
        "",
        "## What it looks at",
        "",
        *(f"- {key}, at {h} x {w} pixels" for key, (h, w) in description.cameras.items()),
        f"- {description.state_key} ({description.state_size} values)" if description.state_key else "- no joint state",
        f"- this moment and the one {description.gap} frames earlier, at {description.fps:g} frames/s"
        + ("; how each differs from the first of its episode" if description.encoder.change else ""),
        "- start and goal images of training episodes, kept with the weights; never a later frame of the one judged",
        "",
        "## What it says",
        "",
        "Progress in [0, 1] from hops: from the earlier moment, from the start and from the goal, with the fusion "
        f"{reward.fusion!r}. "
        "Uncertainty: the standard deviation of the hops, of the references from each other and of the three "
        "perspectives from each other. Stage probabilities "
        + ("come from a head of its own." if description.stage_head else "follow from progress and these shares."),
        "",
        "## Where it comes from",
        "",
        *(f"- {name}: {_listed(value)}" for name, value in provenance.items() if name not in _LONG),
        f"- trained on {len(provenance.get('train_uuids', ()))} episodes, "
        f"{len(provenance.get('holdout_uuids', ()))} held out",
        *cut_off(provenance),
    ]
    if "init" in provenance:
        parts.append(f"- adapted from {provenance['init'].get('folder')}")
    parts += [
        *held_out(provenance),
        "",
        "It knows the scene, cameras, robot and objects of its training store. On others, adapt it with one episode "
        "(`robo-rm train-reward reward=hop init=THIS store=ONE_EPISODE`), and measure it (`robo-rm eval-reward`).",
    ]
    return "\n".join(parts) + "\n"


def _listed(value: Any) -> str:
    return ", ".join(_listed(item) for item in value) or "none" if isinstance(value, list) else number(value)
