"""The prover's policy breaks its chunks in every way that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.safety.chunk import ActionChunk


def spoiled(
    chunk: ActionChunk, contract: RobotContract, random: np.random.Generator, active: Callable[[str], bool]
) -> ActionChunk:
    """The chunk with every fault that is on."""
    low, high = contract.array("position").T
    span = np.where(np.isfinite(high), high - low, 4.0)
    actions: Any = np.array(chunk.actions)
    data = dict(vars(chunk))
    row, column = random.integers(actions.shape[0]), random.integers(actions.shape[1])
    if active("nan"):
        actions[row, column] = np.nan
    if active("inf"):
        actions[row, column] = random.choice([np.inf, -np.inf, 1e308])
    if active("wild"):
        actions[row, column] += 100 * span[column]
    if active("beyond"):
        actions += 0.3 * span
    if active("shape"):
        actions = actions[:, :-1] if random.uniform() < 0.5 else actions[0]
    if active("empty"):
        actions = actions[:0]
    if active("text"):
        actions = [["0.1"] * len(low)]
    if active("reordered") and len(low) > 1:
        data["joints"] = tuple(reversed(chunk.joints))
    if active("misnamed"):
        data["joints"] = ("somebody", *chunk.joints[1:])
    if active("old_epoch"):
        data["epoch"] = chunk.epoch - 1
    if active("old_sequence"):
        data["sequence"] = -1
    if active("late"):
        data["observed_at"] = chunk.observed_at - contract.deadlines.chunk - 0.01
    if active("future"):
        data["observed_at"] = chunk.observed_at + 1.0
    if active("other_contract"):
        data["contract_hash"] = "0" * 64
    data["actions"] = actions
    return ActionChunk(**data)
