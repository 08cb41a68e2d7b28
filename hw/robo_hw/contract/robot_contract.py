"""The robot contract: one file that says what the arm is, how far and fast it may move, and when silence is a fault.

The same file records, converts, trains and deploys. What a policy learns from it (joints, order, units, cameras, action
rate) is hashed into stores and checkpoints and has to agree; the rest is deployment and may differ.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robo_hw.contract import differences as contract_differences
from robo_hw.contract.lerobot_units import with_calibration
from robo_hw.contract.parts import ContractFields
from robo_hw.contract.reading import load_yaml
from robo_hw.contract.rules import build_contract
from robo_hw.errors import ContractError


@dataclass(frozen=True)
class RobotContract(ContractFields):
    """A whole, validated contract. Make it with ``load`` or ``from_dict``."""

    @classmethod
    def load(cls, path: str | Path) -> RobotContract:
        """Read and validate a contract file; a bare name such as ``so101`` means a packaged example.

        Raises:
            ContractError: lists every problem of the file at once, each with its key and what to give instead.
        """
        found = Path(path)
        if not found.exists() and found.suffix == "" and str(path) in example_contracts():
            found = Path(str(resources.files("robo_hw").joinpath("contracts", f"{path}.yaml")))
        elif not found.exists():
            raise ContractError(
                f"contract {path}: no such file; give a YAML file or one of the examples: "
                + ", ".join(example_contracts())
            )
        return cls.from_dict(with_calibration(load_yaml(found), found.parent), source=str(path))

    @classmethod
    def from_dict(cls, data: object, source: str = "contract") -> RobotContract:
        """Validate a mapping of the form ``to_dict`` gives.

        Raises:
            ContractError: lists every problem at once.
        """
        contract, problems = build_contract(cls, data)
        if contract is None or problems:
            lines = "\n".join(f"  - {problem}" for problem in problems)
            count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
            raise ContractError(f"contract {source}: {count}\n{lines}")
        return contract

    def learned(self) -> dict[str, object]:
        """What a policy learns from the contract: joints with kind, unit and order, gripper, cameras, action rate.

        The order of the cameras has no meaning: they go by name.
        """
        return contract_differences.learned_part(self)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of ``learned``: independent of comments, key order, spelling of numbers, and of deployment."""
        text = json.dumps(self.learned(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def difference(self, other: RobotContract) -> list[str]:
        """The fields of the learned part in which ``other`` differs, one line each; empty: a policy fits both."""
        return contract_differences.learned_differences(self, other)

    def deployment_difference(self, other: RobotContract) -> list[str]:
        """The other fields that differ (limits, topics, QoS, deadlines, ...), one line each: allowed, to be logged."""
        return contract_differences.deployment_differences(self, other)

    def wider_limits(self, other: RobotContract) -> list[str]:
        """Limits here that lie beyond those of ``other``, which a policy was trained with; one line each.

        A policy never saw what is out there, so a person has to confirm them. Joints are compared by name.
        """
        return contract_differences.wider_limits(self, other)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The joints in command order."""
        return tuple(joint.name for joint in self.joints)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The joints' names in joint-state messages, in command order."""
        return tuple(joint.state_name for joint in self.joints)

    def array(self, field: str) -> npt.NDArray[np.float64]:
        """One number of every joint as (D,) float64, e.g. ``array("velocity")``; (D, 2) for ``position``, which
        is infinite where a joint is continuous."""
        return np.array([getattr(joint, field) for joint in self.joints], dtype=np.float64)


def example_contracts() -> tuple[str, ...]:
    """Names of the contracts that come with the package; ``RobotContract.load`` takes them."""
    folder = resources.files("robo_hw").joinpath("contracts")
    return tuple(sorted(item.name[: -len(".yaml")] for item in folder.iterdir() if item.name.endswith(".yaml")))
