"""A store says under which robot contract it was recorded, and takes no episodes of another."""

from __future__ import annotations

import pytest

from robo_core.errors import StoreError
from robo_datasets import DemoStore

FEATURES = {"action": {"shape": (2,), "dtype": "float32"}}


def test_the_contract_is_kept_with_its_hash(tmp_path):
    DemoStore.create(tmp_path / "a.zarr", FEATURES, 10, contract_hash="abc", contract={"robot": "arm", "joints": [1.5]})
    store = DemoStore.open(tmp_path / "a.zarr")
    assert store.contract_hash == "abc"
    assert store.contract == {"robot": "arm", "joints": [1.5]}


def test_a_store_without_one_has_none(tmp_path):
    assert DemoStore.create(tmp_path / "a.zarr", FEATURES, 10).contract is None


def test_episodes_of_another_contract_are_not_appended(tmp_path):
    DemoStore.create(tmp_path / "a.zarr", FEATURES, 10, contract_hash="abc")
    assert len(DemoStore.open_or_create(tmp_path / "a.zarr", FEATURES, 10, contract_hash="abc")) == 0
    with pytest.raises(StoreError, match="contract abc"):
        DemoStore.open_or_create(tmp_path / "a.zarr", FEATURES, 10, contract_hash="def")
