"""Does a checkpoint fit an arm's contract? Each question one finding, so that all can be shown at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robo_datasets.errors import ModelError
from robo_hw import RobotContract
from robo_hw.errors import ContractError

if TYPE_CHECKING:
    from robo_policies.cloning.learned import LearnedPolicy
    from robo_rm.models.protocol import RewardModel

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
GO, WARN, NO_GO = "go", "warn", "no-go"
WIDER = "wider limits"
"""The finding of limits beyond those of the training."""
_SAME_SHAPE = 0.04
"""Relative difference of aspect ratios that rounding to whole pixels explains."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what was found."""

    part: str
    check: str
    verdict: str
    """``go``, ``warn`` or ``no-go``."""
    detail: str


def contract_finding(
    part: str, contract: RobotContract, recorded_hash: str | None, recorded: Mapping[str, Any] | None
) -> Finding:
    """Whether ``part`` (a store, a checkpoint) was made under what a policy learns of ``contract``.

    Deployment (limits, topics, deadlines, ...) may differ and is named.
    """
    check = "contract hash"
    if not recorded_hash:
        return Finding(part, check, WARN, "it does not say under which contract it was made")
    made, unreadable = recorded_contract(part, recorded)
    if recorded_hash != contract.hash:
        lines = unreadable if made is None else made.difference(contract)
        detail = f"made under contract {recorded_hash[:12]}, this is {contract.hash[:12]}"
        return Finding(part, check, NO_GO, f"{detail}: {_listed(lines, part)}" if lines else detail)
    lines = [] if made is None else made.deployment_difference(contract)
    differs = f"; deployment differs, as it may: {_listed(lines, part)}" if lines else ""
    return Finding(part, check, GO, contract.hash[:12] + differs)


def wider_findings(part: str, contract: RobotContract, recorded: Mapping[str, Any] | None) -> list[Finding]:
    """Limits of ``contract`` beyond those that ``part`` was made under, one finding; none where there are none."""
    made, _ = recorded_contract(part, recorded)
    wider = contract.wider_limits(made) if made is not None else []
    if not wider:
        return []
    text = _listed(wider, part, here="in this contract", there=f"in the {part}")
    return [Finding(part, WIDER, WARN, f"{text}; confirm them with confirm_wider_limits=true")]


def recorded_contract(part: str, recorded: Mapping[str, Any] | None) -> tuple[RobotContract | None, list[str]]:
    """The contract that ``part`` was made under; None where it has none, and why where it cannot be read."""
    if not recorded:
        return None, []
    try:
        return RobotContract.from_dict(dict(recorded), source=f"of the {part}"), []
    except ContractError as error:
        return None, [f"its own contract cannot be read: {' '.join(str(error).split())[:300]}"]


def _listed(lines: Sequence[str], part: str, here: str | None = None, there: str = "in this contract") -> str:
    here = here or f"in the {part}"
    named = [re.sub(r"\bthere$", there, re.sub(r"\bhere\b", here, line, count=1)) for line in lines[:3]]
    more = f"; and {len(lines) - 3} more fields" if len(lines) > 3 else ""
    return "; ".join(named) + more


def policy_findings(policy: LearnedPolicy, contract: RobotContract) -> list[Finding]:
    """Joints, state, cameras, chunk length and rate of a policy against the contract."""
    card, joints = policy.card, contract.joint_names
    store = card.get("store") or {}
    findings = [contract_finding("checkpoint", contract, store.get("contract_hash"), store.get("contract"))]
    findings += wider_findings("checkpoint", contract, store.get("contract"))

    def add(check: str, problem: str, good: str) -> None:
        findings.append(Finding("checkpoint", check, NO_GO if problem else GO, problem or good))

    size = policy.dims[ACTION]
    problem = f"its actions have {size} values, the contract {len(joints)} joints" if size != len(joints) else ""
    add("joints", problem or order_problem(card.get("actions"), joints, "action"), ", ".join(joints))
    size = policy.dims.get(STATE, len(joints))
    add(
        "state",
        f"it reads {size} values of {STATE}, the contract has {len(joints)} joints" if size != len(joints) else "",
        f"{size} joints",
    )
    findings += camera_findings("checkpoint", policy.cameras, contract)
    length, most = policy.chunk_size, contract.safety.max_horizon
    add(
        "chunk length",
        f"{length} actions are more than safety.max_horizon {most}" if length > most else "",
        f"{length}",
    )
    fps = card.get("fps")
    if fps is None:
        findings.append(
            Finding(
                "checkpoint", "action rate", WARN, f"it does not say its rate; {contract.rates.actions:g} Hz assumed"
            )
        )
    else:
        different = abs(float(fps) - contract.rates.actions) > 1e-6 * contract.rates.actions
        rate = f"trained at {fps:g} Hz, rates.actions of the contract is {contract.rates.actions:g}"
        add("action rate", rate if different else "", f"{contract.rates.actions:g} Hz")
    further = [key for key in policy.dims if key not in (STATE, ACTION)]
    if further:
        text = f"needs {', '.join(f'{key} ({policy.dims[key]})' for key in further)}: give the bridge a topic"
        findings.append(Finding("checkpoint", "further inputs", WARN, text))
    return findings


def reward_findings(model: RewardModel, contract: RobotContract) -> list[Finding]:
    """Contract, cameras, state and rate of a reward model against the contract."""
    cameras = dict.fromkeys(model.cameras)
    made_under = (model.provenance.get("contract_hash"), model.provenance.get("contract"))
    findings = [contract_finding("reward model", contract, *made_under)]
    findings += camera_findings("reward model", cameras, contract)
    size = getattr(getattr(model, "description", None), "state_size", None)
    if model.state_key == STATE and size not in (None, len(contract.joints)):
        text = f"it reads {size} values of {STATE}, the contract has {len(contract.joints)} joints"
        findings.append(Finding("reward model", "state", NO_GO, text))
    fps = reward_rate(model)
    if fps is not None and fps > contract.rates.control:
        text = f"trained at {fps:g} frames/s, the control loop runs at {contract.rates.control:g} Hz"
        findings.append(Finding("reward model", "frame rate", NO_GO, text))
    return findings


def reward_rate(model: RewardModel) -> float | None:
    """Frames a second that a reward model was trained at, where it says so."""
    fps = model.provenance.get("fps") or getattr(getattr(model, "description", None), "fps", None)
    return float(fps) if fps else None


def camera_findings(part: str, cameras: Mapping[str, tuple[int, int] | None], contract: RobotContract) -> list[Finding]:
    """Whether the contract has each camera (key -> (height, width), or None for any size), in the same shape."""
    known = {IMAGES + camera.name: camera for camera in contract.cameras}
    findings = []
    for key, size in cameras.items():
        check = f"camera {key.removeprefix(IMAGES)}"
        camera = known.get(key)
        if camera is None:
            named = ", ".join(camera.name for camera in contract.cameras) or "none"
            findings.append(Finding(part, check, NO_GO, f"not in the contract, which has {named}"))
            continue
        detail, verdict = f"{camera.height}x{camera.width} at {camera.rate:g} Hz", GO
        if size is not None:
            height, width = size
            if abs(width * camera.height / (height * camera.width) - 1) > _SAME_SHAPE:
                detail, verdict = f"takes {height}x{width}, the contract gives {detail}: another shape", NO_GO
            elif height > camera.height:
                detail, verdict = f"takes {height}x{width}, the contract gives only {detail}", WARN
        findings.append(Finding(part, check, verdict, detail))
    return findings


def refuse(findings: Sequence[Finding], what: str) -> None:
    """Raise on the first no-go.

    Raises:
        ModelError: one line: what does not fit, in which field, and how many more do not.
    """
    wrong = [finding for finding in findings if finding.verdict == NO_GO]
    if wrong:
        more = f" (and {len(wrong) - 1} more; robo-rm deploy-check lists all)" if len(wrong) > 1 else ""
        raise ModelError(f"{what} does not fit the contract: {wrong[0].check}: {wrong[0].detail}{more}")


def refuse_wider(findings: Sequence[Finding], what: str, confirmed: bool) -> None:
    """Raise where limits are wider than in training and nobody has confirmed them.

    Raises:
        ModelError: one line: which limits.
    """
    wider = [finding for finding in findings if finding.check == WIDER]
    if wider and not confirmed:
        raise ModelError(f"{what} was trained with tighter limits: {wider[0].detail}, or narrow them")


def order_problem(names: Any, joints: tuple[str, ...], what: str) -> str:
    """Where the names of a feature's values are not the contract's joints in its order; empty where they are."""
    if not isinstance(names, (list, tuple)):
        return ""
    if len(names) != len(joints):
        return f"{len(names)} names of {what}s, {len(joints)} joints in the contract"
    for place, (name, joint) in enumerate(zip(names, joints, strict=True)):
        if name != joint:
            return f"{what} {place} is {name!r}, joint {place} of the contract is {joint!r}"
    return ""
