"""Do recorded demonstrations fit an arm's contract: joints, cameras, rate, and what they ask of the limits?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from robo_hw import RobotContract
from robo_hw.contract.parts import Joint
from robo_policies.serving.fit import (
    ACTION,
    GO,
    IMAGES,
    NO_GO,
    STATE,
    WARN,
    Finding,
    Findings,
    contract_finding,
    wider_findings,
)
from robo_policies.serving.values import Values, match_values, unit_problem

if TYPE_CHECKING:
    from robo_datasets import DemoStore

MANY = 0.05
"""Fraction of frames beyond a limit from which on the demonstrations are taken for another robot's."""


def store_findings(store: DemoStore, contract: RobotContract, pose: int | None = None) -> list[Finding]:
    """Contract hash, joint order, cameras, rate, and the actions against position and velocity limits.

    ``pose``: values of an action where actions are poses of the hand; only their number is then looked at.
    """
    findings = Findings("store")
    findings.append(contract_finding("store", contract, store.contract_hash, store.contract))
    findings += wider_findings("store", contract, store.contract)
    joints = contract.joint_names
    values = store_values(store, contract)
    for key in (STATE, ACTION):
        feature, found = store.features.get(key), values[key]
        shape = tuple(feature["shape"]) if feature else ()
        if key == ACTION and pose is not None:
            problem = f"has shape {shape}, a pose {pose} values" if shape != (pose,) else ""
            findings.pass_or_fail(key, problem, f"poses of {pose} values")
            continue
        problem = f"has shape {shape}, the contract {len(joints)} joints" if shape != (len(joints),) else found.problem
        good = f"{len(joints)} joints in the contract's order"
        if found.units is not None:
            good += f", in LeRobot's units: {found.units.described()}"
        findings.pass_or_fail(key, problem if feature else "missing", good)
    for camera in contract.cameras:
        feature = store.features.get(IMAGES + camera.name)
        size = tuple(feature["shape"]) if feature else "missing"
        wanted = (camera.height, camera.width, 3)
        problem = "" if size == wanted else f"{size}; the contract says {wanted}"
        # A policy may do without a camera that the arm has; whether it does is the checkpoint's own finding.
        verdict = GO if not problem else WARN if feature is None else NO_GO
        findings.add(f"camera {camera.name}", verdict, problem or f"{wanted[0]}x{wanted[1]}")
    different = abs(store.fps - contract.rates.actions) > 1e-6 * contract.rates.actions
    problem = f"{store.fps:g} frames/s, rates.actions is {contract.rates.actions:g} Hz" if different else ""
    findings.pass_or_fail("rate", problem, f"{store.fps:g} Hz")
    if pose is not None or any(one.verdict == NO_GO and one.check in (STATE, ACTION) for one in findings):
        return findings
    rows = {key: [np.asarray(store[i][key][:], np.float64) for i in range(len(store))] for key in (ACTION, STATE)}
    for key, sequences in rows.items():
        everything = np.concatenate(sequences)
        problem = unit_problem(values[key], contract, everything.min(axis=0), everything.max(axis=0))
        if problem:
            findings.add("units", NO_GO, f"{key}: {problem}")
            return findings
    return findings + action_findings("store", [values[ACTION].to_contract(taken) for taken in rows[ACTION]], contract)


def store_values(store: DemoStore, contract: RobotContract) -> dict[str, Values]:
    """How a store's states and actions become the contract's, by the names of their values."""
    names = {key: store.features[key]["names"] if key in store.features else None for key in (STATE, ACTION)}
    return {key: match_values(given, contract, key) for key, given in names.items()}


def action_findings(part: str, sequences: Sequence[np.ndarray], contract: RobotContract) -> list[Finding]:
    """What actions ask of the contract's limits.

    ``sequences``: (T, D) actions that follow each other at ``rates.actions``. A few beyond a limit are the core's to
    hold; many mean that contract and data are not of one robot.
    """
    low, high = contract.array("position").T
    saturate = np.array([joint.saturate for joint in contract.joints])
    actions = np.concatenate([np.asarray(sequence, np.float64) for sequence in sequences])
    excess = np.maximum(low - actions, actions - high)
    excess[:, saturate] = -np.inf
    limited = np.isfinite(high)  # a continuous joint has no limits to come near
    width = np.where(limited, high - low, 1.0)
    beyond = (excess > 1e-6 * width).any(axis=1)
    span = np.where(limited, (actions - np.where(limited, low, 0.0)) / width, 0.5)
    worst = int(np.argmax(np.maximum(-span, span - 1).max(axis=0)))
    joint = contract.joints[worst]
    detail = (
        f"{joint.name} comes nearest: {actions[:, worst].min():.3g} to {actions[:, worst].max():.3g} {unit(joint)}, "
        f"limits {joint.position[0]:.3g} to {joint.position[1]:.3g}"
    )
    findings = [_share(part, "action range", beyond, detail)]

    held = np.where(saturate, np.clip(actions, low, high), actions)
    lengths = np.cumsum([len(sequence) for sequence in sequences])[:-1]
    steps = np.concatenate([np.diff(rows, axis=0) for rows in np.split(held, lengths)])
    steps = np.abs(np.where(limited, steps, np.remainder(steps + np.pi, 2 * np.pi) - np.pi))
    if not len(steps):
        return findings
    ratio = steps * contract.rates.actions / contract.array("velocity")
    worst = int(np.argmax(ratio.max(axis=0)))
    detail = (
        f"{contract.joint_names[worst]} asks most: {ratio[:, worst].max():.2f} of its velocity limit at the worst, "
        f"{np.quantile(ratio[:, worst], 0.99):.2f} in 99 of 100"
    )
    # Beyond the limit the core slows down along the path: not wrong, and worth knowing.
    fraction = float((ratio > 1).any(axis=1).mean())
    verdict = GO if fraction == 0 else WARN
    findings.append(Finding(part, "velocity asked", verdict, f"{detail}; {fraction:.1%} of steps would be slowed"))
    wild = (steps > contract.array("action_jump")).any(axis=1)
    if wild.any():
        row = int(np.argmax((steps / contract.array("action_jump")).max(axis=1)))
        column = int(np.argmax(steps[row] / contract.array("action_jump")))
        joint = contract.joints[column]
        text = f"{joint.name} jumps by {steps[row, column]:.3g} {unit(joint)}, action_jump is {joint.action_jump:.3g}"
        findings.append(Finding(part, "action jumps", NO_GO, f"{text}; such a chunk is rejected"))
    return findings


def unit(joint: Joint) -> str:
    """The joint's unit for people: a fraction's "1" says nothing."""
    return "of 1" if joint.unit == "1" else joint.unit


def _share(part: str, check: str, beyond: np.ndarray, detail: str) -> Finding:
    fraction = float(beyond.mean())
    verdict = GO if fraction == 0 else WARN if fraction < MANY else NO_GO
    return Finding(part, check, verdict, f"{fraction:.1%} of actions lie beyond a position limit; {detail}")
