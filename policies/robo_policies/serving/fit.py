"""Does a checkpoint fit an arm's contract? Each question one finding, so that all can be shown at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robo_core.errors import ModelError
from robo_hw import RobotContract
from robo_hw.contract.lerobot_units import LeRobotUnits
from robo_hw.errors import ContractError
from robo_policies.feature_names import NamesError, flat_names
from robo_policies.serving.values import Values, match_values, recorded_ranges, unit_problem

if TYPE_CHECKING:
    from robo_policies.cloning.learned import SavedPolicy
    from robo_policies.serving.cartesian import CartesianActions
    from robo_rm.reward_models.protocol import RewardModel

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


class Findings(list[Finding]):
    """What was found of one part, in order."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part

    def add(self, check: str, verdict: str, detail: str) -> None:
        """Add one."""
        self.append(Finding(self.part, check, verdict, detail))

    def pass_or_fail(self, check: str, problem: str, good: str) -> None:
        """Add a no-go where there is a ``problem``, and what is ``good`` where there is none."""
        self.add(check, NO_GO if problem else GO, problem or good)


def contract_finding(
    part: str, contract: RobotContract, recorded_hash: str | None, recorded: Mapping[str, object] | None
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


def wider_findings(part: str, contract: RobotContract, recorded: Mapping[str, object] | None) -> list[Finding]:
    """Limits of ``contract`` beyond those that ``part`` was made under, one finding; none where there are none."""
    made, _ = recorded_contract(part, recorded)
    wider = contract.wider_limits(made) if made is not None else []
    if not wider:
        return []
    text = _listed(wider, part, here="in this contract", there=f"in the {part}")
    return [Finding(part, WIDER, WARN, f"{text}; confirm them with confirm_wider_limits=true")]


def recorded_contract(part: str, recorded: Mapping[str, object] | None) -> tuple[RobotContract | None, list[str]]:
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


def policy_findings(
    policy: SavedPolicy, contract: RobotContract, cartesian: CartesianActions | None = None
) -> list[Finding]:
    """Joints, state, cameras, chunk length and rate of a policy against the contract.

    ``cartesian``: what turns its actions into joints, where they are poses.
    """
    card, joints = policy.card, contract.joint_names
    store = card.get("store") or {}
    findings = Findings("checkpoint")
    findings.append(contract_finding("checkpoint", contract, store.get("contract_hash"), store.get("contract")))
    findings += wider_findings("checkpoint", contract, store.get("contract"))
    values = policy_values(policy, contract)
    checked: list[tuple[str, str]] = [(ACTION, "joints"), (STATE, "state")]
    if cartesian is not None:
        problem = cartesian.problem(policy.dims[ACTION], _names_of(card))
        findings.pass_or_fail("Cartesian actions", problem, f"{cartesian.size} values")
        if cartesian.reads_pose:
            size = policy.dims.get(STATE, cartesian.size)
            wrong = f"it reads {size} values of {STATE}, a pose has {cartesian.size}" if size != cartesian.size else ""
            findings.pass_or_fail("state", wrong, f"a pose of {size} values")
        checked = [] if cartesian.reads_pose else [(STATE, "state")]
    for key, check in checked:
        size, found = policy.dims.get(key, len(joints)), values[key]
        what = (
            f"its {'actions have' if key == ACTION else 'state has'} {size} values, the contract {len(joints)} joints"
        )
        good = ", ".join(joints if found.units is None else found.units.names) if key == ACTION else f"{size} joints"
        findings.pass_or_fail(check, what if size != len(joints) else found.problem, good)
    findings += unit_findings(policy, contract, values) if cartesian is None else []
    findings += camera_findings("checkpoint", policy.cameras, contract)
    length, most = policy.chunk_size, contract.safety.max_horizon
    problem = f"{length} actions are more than safety.max_horizon {most}" if length > most else ""
    findings.pass_or_fail("chunk length", problem, f"{length}")
    fps = card.get("fps")
    if fps is None:
        findings.add("action rate", WARN, f"it does not say its rate; {contract.rates.actions:g} Hz assumed")
    else:
        different = abs(float(fps) - contract.rates.actions) > 1e-6 * contract.rates.actions
        rate = f"trained at {fps:g} Hz, rates.actions of the contract is {contract.rates.actions:g}"
        findings.pass_or_fail("action rate", rate if different else "", f"{contract.rates.actions:g} Hz")
    further = [key for key in policy.dims if key not in (STATE, ACTION)]
    if further:
        text = f"needs {', '.join(f'{key} ({policy.dims[key]})' for key in further)}: give the bridge a topic"
        findings.add("further inputs", WARN, text)
    return findings


def _names_of(card: Mapping[str, object]) -> tuple[str, ...] | None:
    try:
        return flat_names(card.get("actions"))
    except NamesError:
        return None


def policy_values(policy: SavedPolicy, contract: RobotContract) -> dict[str, Values]:
    """How a policy's actions and its ``observation.state`` become the contract's, by the names that its card has.

    A checkpoint that LeRobot wrote names nothing. It is in LeRobot's units where the contract says them, since LeRobot
    has no others; its statistics must agree (``unit_findings``).
    """
    card = policy.card
    # What train-rl wrote describes its actions there, which are a simulated arm's.
    names = None if isinstance(card.get("actions"), Mapping) and "kind" in card["actions"] else card.get("actions")
    found = {ACTION: match_values(names, contract, "action"), STATE: match_values(card.get("state"), contract, "state")}
    if not card and contract.lerobot is not None:
        return dict.fromkeys(found, Values(LeRobotUnits(contract), named=False))
    if not found[STATE].named:
        found[STATE] = Values(found[ACTION].units, named=False)
    return found


def unit_findings(policy: SavedPolicy, contract: RobotContract, values: Mapping[str, Values]) -> list[Finding]:
    """Whether the demonstrations of a policy, by the statistics beside its weights, were in the units that it is run
    in; nothing where there are no statistics and the units are the contract's."""
    ranges = recorded_ranges(policy.folder)
    for key, found in values.items():
        if key in ranges and not found.problem and len(ranges[key][0]) == len(contract.joints):
            problem = unit_problem(found, contract, *ranges[key])
            if problem:
                return [Finding("checkpoint", "units", NO_GO, f"{key}: {problem}")]
    units = values[ACTION].units
    if units is None:
        return []
    if values[ACTION].named:
        return [Finding("checkpoint", "units", GO, f"LeRobot's, by the contract: {units.described()}")]
    text = f"it names no values; taken in LeRobot's units, by the contract: {units.described()}"
    return [Finding("checkpoint", "units", WARN, text)]


def reward_values(model: RewardModel, contract: RobotContract) -> Values:
    """How the state that a reward model reads becomes the contract's: LeRobot's units, where the contract has them and
    the model was not trained under any contract."""
    names = model.provenance.get("state_names")
    found = match_values(names, contract, "state")
    if not found.named and contract.lerobot is not None and not model.provenance.get("contract_hash"):
        return Values(LeRobotUnits(contract), named=False)
    return found


def reward_findings(model: RewardModel, contract: RobotContract) -> list[Finding]:
    """Contract, cameras, state and rate of a reward model against the contract."""
    cameras = dict.fromkeys(model.cameras)
    made_under = (model.provenance.get("contract_hash"), model.provenance.get("contract"))
    findings = Findings("reward model")
    findings.append(contract_finding("reward model", contract, *made_under))
    findings += camera_findings("reward model", cameras, contract)
    size = getattr(getattr(model, "description", None), "state_size", None)
    if model.state_key == STATE and size not in (None, len(contract.joints)):
        text = f"it reads {size} values of {STATE}, the contract has {len(contract.joints)} joints"
        findings.add("state", NO_GO, text)
    elif model.state_key == STATE:
        values = reward_values(model, contract)
        if values.problem:
            findings.add("state", NO_GO, values.problem)
        elif values.units is not None:
            text = f"LeRobot's units, by the contract: {values.units.described()}"
            findings.add("units", GO if values.named else WARN, text)
    fps = reward_rate(model)
    if fps is not None and fps > contract.rates.control:
        text = f"trained at {fps:g} frames/s, the control loop runs at {contract.rates.control:g} Hz"
        findings.add("frame rate", NO_GO, text)
    return findings


def reward_rate(model: RewardModel) -> float | None:
    """Frames a second that a reward model was trained at, where it says so."""
    fps = model.provenance.get("fps") or getattr(getattr(model, "description", None), "fps", None)
    return float(fps) if fps else None


def camera_findings(part: str, cameras: Mapping[str, tuple[int, int] | None], contract: RobotContract) -> list[Finding]:
    """Whether the contract has each camera (key -> (height, width), or None for any size), in the same shape."""
    known = {IMAGES + camera.name: camera for camera in contract.cameras}
    findings = Findings(part)
    for key, size in cameras.items():
        check = f"camera {key.removeprefix(IMAGES)}"
        camera = known.get(key)
        if camera is None:
            named = ", ".join(camera.name for camera in contract.cameras) or "none"
            findings.add(check, NO_GO, f"not in the contract, which has {named}")
            continue
        detail, verdict = f"{camera.height}x{camera.width} at {camera.rate:g} Hz", GO
        if size is not None:
            height, width = size
            if abs(width * camera.height / (height * camera.width) - 1) > _SAME_SHAPE:
                detail, verdict = f"takes {height}x{width}, the contract gives {detail}: another shape", NO_GO
            elif height > camera.height:
                detail, verdict = f"takes {height}x{width}, the contract gives only {detail}", WARN
        findings.add(check, verdict, detail)
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
