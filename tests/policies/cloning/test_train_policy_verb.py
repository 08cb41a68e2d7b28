"""Mistakes at the command line of train-policy: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from robo_datasets import DemoStore
from robo_hw.contract.robot_contract import RobotContract

TINY_DIFFUSION = (
    "policy=diffusion", "policy.chunk_size=8", "policy.execution_horizon=3", "policy.down_dims=[16,16]",
    "policy.num_inference_steps=2", "training.precision=fp32", "training.batch_size=8",
)  # fmt: skip


@pytest.fixture
def refused(run_command, tmp_path):
    def check(store, *words: str, told: str) -> None:
        out = tmp_path / "policy"
        code, _, errors = run_command("train-policy", f"store={store.path}", f"out={out}", "steps=2", *words)
        assert (code, errors.count("\n")) == (2, 1), errors
        assert told in errors
        assert not out.exists()

    return check


def test_a_diffusion_policy_is_trained_and_judged_on_episodes_held_out(run_command, point_store, tmp_path):
    out = tmp_path / "policy"
    words = ("train-policy", f"store={point_store.path}", f"out={out}", "steps=3", "holdout=4", *TINY_DIFFUSION)
    code, printed, _ = run_command(*words)
    assert code == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["holdout_action_l1"] > 0
    assert metrics["frames_used"] < metrics["frames"]
    assert "holdout_action_l1_normalised" in printed
    assert "CONTRACT" not in printed, "a command with a placeholder cannot be run"
    assert "next: an arm takes this policy with a robot contract only; robo-rm make-contract --help" in printed
    assert json.loads((out / "config.json").read_text())["type"] == "diffusion"
    code, printed, _ = run_command(*words)
    assert (code, "nothing was trained" in printed) == (0, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("policy.cameras=[top]",), "no camera 'top', which policy.cameras asks for; it has none"),
        (("policy=diffusion", "policy.chunk_size=10"), "try policy.chunk_size=8"),
        (("policy=diffusion", "policy.dim_model=32"), "no setting 'policy.dim_model'"),
        (("policy=diffusion", "policy.dwon_dims=[32]"), "did you mean 'policy.down_dims'"),
        (("policy=act", "policy.down_dims=[32]"), "no setting 'policy.down_dims'"),
        (("holdout=24",), "holdout=24 leaves nothing to train on: the store has 24 episodes"),
        (("contract=so101",), "its actions have 2 values, and so101 has 6 joints"),
        (("contract=nowhere",), "contract nowhere: no such file"),
        (("weights=rabc", "weights.name=other"), "robo-rm score"),
    ],
)
def test_mistakes_are_told_in_one_line(refused, point_store, words, told):
    refused(point_store, *words, told=told)


def test_pictures_without_environment_state_need_a_camera_that_is_there(refused, picture_store):
    refused(picture_store, "policy.cameras=[top]", told="it has front, wrist")
    refused(picture_store, "policy.cameras=[]", told="neither observation.environment_state nor a camera")


def test_weights_of_another_store_are_refused(refused, new_store):
    one, other = new_store(good=2, name="one.zarr"), new_store(good=2, name="other.zarr")
    derived = one.derive("weights", provenance={"mode": "paper"})
    for uuid in one.uuids:
        derived.write(uuid, {"weight": np.ones(one.lengths[uuid], np.float32)})
    shutil.copytree(one.path / "derived", other.path / "derived", dirs_exist_ok=True)
    refused(other, "weights=rabc", told="belong to another store")


@pytest.mark.parametrize(
    ("kept", "told"), [("0" * 64, "was recorded under the robot contract 000000000000"), (None, "")]
)
def test_demonstrations_of_another_contract_are_refused(refused, run_command, tmp_path, kept, told):
    contract = RobotContract.load("so101")
    joints = list(contract.joint_names)
    features = {
        "observation.state": {"shape": (6,), "dtype": "float32"},
        "observation.environment_state": {"shape": (1,), "dtype": "float32"},
        "action": {"shape": (6,), "dtype": "float32", "names": joints[::-1] if kept is None else joints},
    }
    store = DemoStore.create(tmp_path / "arm.zarr", features, fps=10, contract_hash=kept)
    with store.writer(task="move", success=True) as episode:
        episode.extend({key: np.random.default_rng(0).normal(size=(9, *value["shape"])).astype(np.float32)
                        for key, value in features.items()})  # fmt: skip
    refused(store, "contract=so101", told=told or "the order differs (so101)")


def test_what_speaks_against_the_weights_is_told_again_before_training(run_command, new_store, tmp_path):
    store = new_store(good=3)
    progress = store.derive("progress", provenance={"source": "model", "model_sha256": "0" * 64, "stages": []})
    weights = store.derive("weights", provenance={"mode": "calibrated", "progress": progress.provenance})
    for uuid in store.uuids:
        length = store.lengths[uuid]
        falling = np.linspace(0.9, 0.1, length, dtype=np.float32)
        none = np.zeros(length, np.float32)
        progress.write(uuid, {"progress": falling, "stage_probabilities": none[:, None], "uncertainty": none})
        weights.write(uuid, {"weight": np.ones(length, np.float32)})
    words = ("train-policy", f"store={store.path}", f"out={tmp_path / 'policy'}", "steps=2", *TINY_DIFFUSION)
    code, printed, _ = run_command(*words, "weights=rabc")
    assert code == 0
    assert "warning: the weights are nearly uniform" in printed
    assert "warning: the progress hardly rises along the episodes that did not fail (voc -1.00)" in printed
    code, printed, _ = run_command(*words, "weights=none", "overwrite=true")
    assert (code, "warning" in printed) == (0, False)
