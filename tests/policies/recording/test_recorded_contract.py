"""Demonstrations of a simulated arm are recorded under its robot contract."""

from __future__ import annotations

import pytest

from robo_core.errors import ConfigError
from robo_datasets import DemoStore
from robo_hw import RobotContract
from robo_policies.recording.contract import recorded_contract
from robo_policies.recording.recorder import RecordingPlan

PLAN = RecordingPlan("tidy_drawer", "clean", 0)


def test_the_worlds_own_contract_is_taken_where_it_fits():
    contract = recorded_contract("auto", PLAN, 20)
    assert contract is not None
    assert contract.hash == RobotContract.load("tidy_drawer").hash
    assert recorded_contract("auto", RecordingPlan("tidy_drawer", "clean", 0, image_size=64), 20) is None
    assert recorded_contract("auto", RecordingPlan("tidy_drawer", "clean", 0, cameras=("front",)), 20) is None
    assert recorded_contract(None, PLAN, 20) is None


@pytest.mark.parametrize(
    ("name", "plan", "fps", "match"),
    [
        ("so101", PLAN, 20, "joints"),
        ("tidy_drawer", PLAN, 10, "rates.actions"),
        ("tidy_drawer", RecordingPlan("tidy_drawer", "clean", 0, image_size=64), 20, "camera front is 128x128"),
        ("tidy_drawer", RecordingPlan("tidy_drawer", "clean", 0, cameras=()), 20, "cameras are front, wrist"),
        ("nothing.yaml", PLAN, 20, "no such file"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused_by_field(name, plan, fps, match):
    with pytest.raises(ConfigError, match=match):
        recorded_contract(name, plan, fps)


def test_record_writes_contract_and_hash_into_the_store(tmp_path):
    from robo_core.cli.main import main

    path = tmp_path / "demos.zarr"
    assert main(["record", f"store={path}", "episodes=1", "quality=stops_partway", "processes=1"]) == 0
    store, contract = DemoStore.open(path), RobotContract.load("tidy_drawer")
    assert store.contract_hash == contract.hash
    assert RobotContract.from_dict(store.contract).hash == contract.hash
