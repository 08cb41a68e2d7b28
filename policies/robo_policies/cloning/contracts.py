"""Do demonstrations, or a policy, fit a robot's contract?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import robo_hw
from robo_core.errors import StoreError
from robo_policies import serving
from robo_policies.cloning.windows import ACTION

if TYPE_CHECKING:
    from robo_datasets import DemoStore
    from robo_policies.cloning.learned import SavedPolicy

OF_THE_JOINTS = ("contract hash", "joints", "state", "units")
"""The findings of `robo_policies.serving.fit` that a simulated arm shares with a real one."""


def check_store_contract(store: DemoStore, contract: str) -> None:
    """Refuse demonstrations of another robot than that of ``contract``, a file or the name of an example.

    Raises:
        StoreError: the store was recorded under another contract, or its actions are not the contract's joints.
        ContractError: the contract cannot be read, or is wrong.
    """
    wanted = robo_hw.RobotContract.load(contract)
    if store.contract_hash is not None and store.contract_hash != wanted.hash:
        made, lines = serving.recorded_contract("store", store.contract)
        lines = lines if made is None else made.difference(wanted)
        why = f": {'; '.join(lines[:3])}" if lines else ""
        raise StoreError(
            f"{store.path} was recorded under the robot contract {store.contract_hash[:12]}, and {contract} is "
            f"{wanted.hash[:12]}{why}; record again, or give the contract that it was recorded under"
        )
    feature = store.features.get(ACTION)
    size = int(feature["shape"][0]) if feature else 0
    if size != len(wanted.joints):
        raise StoreError(
            f"{store.path}: its actions have {size} values, and {contract} has {len(wanted.joints)} joints "
            f"({', '.join(wanted.joint_names)})"
        )
    found = serving.match_values(feature.get("names") if feature else None, wanted, "action")
    if found.problem:
        raise StoreError(f"{store.path}: {found.problem} ({contract})")


def check_policy_contract(policy: SavedPolicy, contract: str) -> str | None:
    """Refuse a policy that was trained under another contract than ``contract``, a file or the name of an example.

    Returns:
        What is to be told where the policy does not say under which contract it was trained; None where it does.

    Raises:
        ModelError: it was trained under another one, or for other joints; names the fields that differ.
        ContractError: the contract cannot be read, or is wrong.
    """
    # Cameras, rates and lengths of chunks are the real arm's business: deploy-check and serve-policy look at them.
    found = [
        one
        for one in serving.policy_findings(policy, robo_hw.RobotContract.load(contract))
        if one.check in OF_THE_JOINTS
    ]
    serving.refuse(found, f"the policy in {policy.folder}")
    if any(finding.verdict == serving.WARN for finding in found):
        return f"the policy in {policy.folder} does not say under which robot contract it was trained"
    return None
