"""In what two contracts differ: the learned part has to agree, deployment may differ, wider limits need confirming."""

from __future__ import annotations

import json
from dataclasses import asdict

from robo_hw.contract.parts import ContractFields

_LEARNED_OF_JOINT = ("name", "kind", "unit")
_LEARNED_OF_CAMERA = ("name", "width", "height")
_LIMITS = ("velocity", "acceleration", "jerk", "following_error", "state_jump", "action_jump")
_ABSENT = object()


def learned_part(contract: ContractFields) -> dict[str, object]:
    """What a policy learns from a contract, as plain lists and mappings."""
    cameras = [{key: getattr(camera, key) for key in _LEARNED_OF_CAMERA} for camera in contract.cameras]
    return {
        "joints": [{key: getattr(joint, key) for key in _LEARNED_OF_JOINT} for joint in contract.joints],
        "gripper": None if contract.gripper is None else asdict(contract.gripper),
        "cameras": sorted(cameras, key=lambda camera: str(camera["name"])),
        "rates": {"actions": contract.rates.actions},
    }


def learned_differences(mine: ContractFields, theirs: ContractFields) -> list[str]:
    """Fields of the learned part that differ, one line each; the joints' order first."""
    lines = _differences(_flat(learned_part(mine)), _flat(learned_part(theirs)))
    ours, others = ([joint.name for joint in contract.joints] for contract in (mine, theirs))
    if ours != others and sorted(ours) == sorted(others):
        lines.insert(0, f"joints: order {', '.join(ours)} here, {', '.join(others)} there")
    return lines


def deployment_differences(mine: ContractFields, theirs: ContractFields) -> list[str]:
    """Fields outside the learned part that differ, one line each."""
    flat = []
    for contract in (mine, theirs):
        known = _flat(learned_part(contract))
        flat.append({key: value for key, value in _flat(contract.to_dict()).items() if key not in known})
    return _differences(*flat)


def wider_limits(mine: ContractFields, theirs: ContractFields) -> list[str]:
    """Limits of ``mine`` that allow more than those of ``theirs``, one line each."""
    trained = {joint.name: joint for joint in theirs.joints}
    lines = []
    for joint in mine.joints:
        other = trained.get(joint.name)
        if other is None:
            continue  # another joint: a learned difference, refused anyway
        (low, high), (least, most) = joint.position, other.position
        if low < least or high > most:
            lines.append(
                f"joints[{joint.name}].position: [{low:g}, {high:g}] here reaches beyond [{least:g}, {most:g}] there"
            )
        for key in _LIMITS:
            here, there = getattr(joint, key), getattr(other, key)
            if here > there:
                lines.append(f"joints[{joint.name}].{key}: {here:g} here is more than {there:g} there")
    return lines


def _differences(mine: dict[str, object], theirs: dict[str, object]) -> list[str]:
    return [
        f"{key}: {_shown(mine, key)} here, {_shown(theirs, key)} there"
        for key in dict.fromkeys([*mine, *theirs])
        if mine.get(key, _ABSENT) != theirs.get(key, _ABSENT)
    ]


def _flat(value: object, where: str = "") -> dict[str, object]:
    """Leaves by path; lists of named things by name, so that an inserted joint does not shift all the others."""
    if isinstance(value, dict) and value:
        items = [(f"{where}.{key}" if where else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        items = [(f"{where}[{item['name']}]", item) for item in value]
    else:
        return {where: value}
    return {path: leaf for key, item in items for path, leaf in _flat(item, key).items()}


def _shown(leaves: dict[str, object], key: str) -> str:
    return json.dumps(leaves[key]) if key in leaves else "absent"
