from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from robo_core.errors import ConfigError, ModelError
from robo_policies import load_policy, train_policy
from robo_rm.training.budget import Budget


@pytest.fixture
def observations():
    random = np.random.default_rng(0)
    return {
        "observation.state": random.uniform(-1, 1, (7, 2)).astype(np.float32),
        "observation.environment_state": random.uniform(-1, 1, (7, 3)).astype(np.float32),
    }


@pytest.fixture
def copied(point_policy, tmp_path):
    return shutil.copytree(point_policy.policy.folder, tmp_path / "policy")


def test_lerobot_loads_the_folder_and_gives_the_same_actions(point_policy, observations, capsys):
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    folder = point_policy.policy.folder
    theirs = ACTPolicy.from_pretrained(folder)
    pre, post = make_pre_post_processors(
        theirs.config, str(folder), preprocessor_overrides={"device_processor": {"device": "cpu"}}
    )
    ours = point_policy.policy.act(observations)
    for index in range(7):
        one = {key: torch.from_numpy(values[index]) for key, values in observations.items()}
        theirs.reset()
        for step in range(point_policy.policy.execution_horizon):
            action = post(theirs.select_action(pre(one)))[0].numpy()
            np.testing.assert_allclose(ours[index, step], action, atol=1e-5)


def test_the_training_loops_network_and_the_loaded_policy_agree(point_policy, observations):
    again = load_policy(point_policy.policy.folder)
    np.testing.assert_array_equal(again.act(observations), point_policy.policy.act(observations))


def test_one_observation_gives_one_chunk_and_several_give_several(point_policy, observations):
    policy = point_policy.policy
    chunks = policy.act(observations)
    assert chunks.shape == (7, 5, 2)
    assert chunks.dtype == np.float32
    one = policy.act({key: values[3] for key, values in observations.items()} | {"other": np.zeros(9)})
    assert one.shape == (5, 2)
    np.testing.assert_allclose(one, chunks[3], atol=1e-5)


def test_the_card_says_where_the_policy_comes_from(point_policy, point_store):
    card = point_policy.policy.card
    assert card["store"]["content_hash"] == point_store.content_hash()
    assert card["trained_with"]["weights"] == {"mode": "none"}
    assert card["fps"] == 10
    assert card["dims"] == {"observation.state": 2, "observation.environment_state": 3, "action": 2}
    assert set(card["files"]) >= {"config.json", "model.safetensors", "policy_preprocessor.json"}


def test_a_folder_of_lerobots_without_a_card_runs_too(copied, point_policy, observations):
    (copied / "robo_policy.json").unlink()
    np.testing.assert_array_equal(load_policy(copied).act(observations), point_policy.policy.act(observations))


def test_an_observation_of_another_size_or_without_a_key_is_named(point_policy, observations):
    with pytest.raises(
        ModelError, match=r"trained on 2 values of 'observation.state'; the observation has shape \(7, 3"
    ):
        point_policy.policy.act(observations | {"observation.state": np.zeros((7, 3))})
    with pytest.raises(ModelError, match=r"needs the value 'observation\.environment_state'"):
        point_policy.policy.act({"observation.state": np.zeros(2)})


def test_a_missing_folder_and_one_without_a_policy_are_told_apart(tmp_path):
    with pytest.raises(ModelError, match="is not a folder"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"holds no policy \(no config.json\); train one first"):
        load_policy(tmp_path)
    (tmp_path / "training").mkdir()
    with pytest.raises(ModelError, match="unfinished, repeat the same"):
        load_policy(tmp_path)


def spoil(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: spoil(folder / "model.safetensors"), "model.safetensors does not match its checksum"),
        (lambda folder: spoil(folder / "config.json"), "config.json does not match its checksum"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda folder: (folder / "robo_policy.json").write_text("{"), "robo_policy.json is damaged"),
        (lambda folder: (folder / "robo_policy.json").write_text('{"format": 9}'), "not of format 1"),
    ],
)
def test_a_damaged_folder_names_the_file(copied, damage, words):
    damage(copied)
    with pytest.raises(ModelError, match=words):
        load_policy(copied)


def test_damage_that_no_checksum_covers_is_still_an_error_of_one_line(copied):
    (copied / "robo_policy.json").unlink()
    model = copied / "model.safetensors"
    model.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(ModelError, match="does not hold a readable act policy"):
        load_policy(copied)


def test_a_policy_of_another_kind_is_refused(copied):
    (copied / "robo_policy.json").unlink()
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"type": "vqbet"}))
    with pytest.raises(ModelError, match="type 'vqbet'; this version runs act and diffusion"):
        load_policy(copied)


def test_a_device_that_is_not_there_is_refused(copied):
    with pytest.raises(ConfigError, match="use auto, cpu or cuda"):
        load_policy(copied, device="tpu")


def test_training_again_returns_what_is_there_and_never_writes_over_another_run(
    new_store, tiny_act, quick, tmp_path, observations
):
    store, out = new_store(good=3), tmp_path / "policy"
    first = train_policy(store, out, Budget(3), tiny_act, training=quick)
    again = train_policy(store, out, Budget(3), tiny_act, training=quick)
    assert (first.resumed, again.resumed) == (False, True)
    np.testing.assert_array_equal(first.policy.act(observations), again.policy.act(observations))
    with pytest.raises(ConfigError, match=r"holds a run with steps=3, not 4; .*overwrite=true"):
        train_policy(store, out, Budget(4), tiny_act, training=quick)
    other = train_policy(store, out, Budget(4), tiny_act, training=quick, overwrite=True)
    assert other.metrics["steps"] == 4


def test_a_policy_that_was_not_trained_here_is_not_written_over(copied, point_store, tiny_act, quick):
    shutil.rmtree(copied / "training")
    (copied / "robo_policy.json").unlink()
    with pytest.raises(ConfigError, match="not trained here"):
        train_policy(point_store, copied, Budget(3), tiny_act, training=quick)
