"""eval-policy at the command line: steering by a function in a file, contracts, and what does not fit."""

from __future__ import annotations

import json

import pytest
from drawer_policies import drawer_policy

from robo_core.errors import ConfigError
from robo_hw import RobotContract
from robo_policies.cloning.settings import DiffusionSettings
from robo_policies.cloning.steering_settings import SteeringSettings
from robo_policies.envs.tidy_drawer.env import STATE_NAMES
from robo_policies.evaluation.evaluate import evaluate

REWARD = """
import torch
count = 0

def low(actions, observation):
    return -actions[..., 1].square().sum(-1)

def late(actions, observation):
    return observation["observation.stat"]

def flat(actions, observation):
    return -actions.square().sum()

def fixed(actions, observation):
    return torch.zeros(actions.shape[:2])

def plain(actions, observation):
    return 1.0
"""


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    settings = DiffusionSettings(
        chunk_size=8, execution_horizon=8, down_dims=[16, 16], diffusion_step_embed_dim=8, num_inference_steps=3
    )
    return drawer_policy(tmp_path_factory.mktemp("policies") / "diffusion", settings)


@pytest.fixture(scope="module")
def reward_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards") / "rewards.py"
    path.write_text(REWARD)
    return path


def refused(run_command, tmp_path, policy, *words):
    out = tmp_path / "eval"
    code, _, errors = run_command("eval-policy", f"policy={policy.folder}", "episodes=2", f"out={out}", *words)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert not out.exists()
    return errors


def test_a_policy_is_steered_by_a_file_and_compared_with_itself(run_command, diffusion, reward_file, tmp_path):
    out = tmp_path / "eval"
    code, printed, errors = run_command(
        "eval-policy", f"policy={diffusion.folder}", f"baseline={diffusion.folder}", "episodes=2", "processes=1",
        f"steering.reward={reward_file}:low", "steering.scale=0.5", f"out={out}",
    )  # fmt: skip
    assert code == 0, errors
    assert "diffusion, steered" in printed
    episodes, plain = (
        json.loads((out / name).read_text())["episodes"] for name in ("episodes.json", "baseline_episodes.json")
    )
    assert [one["seed"] for one in episodes] == [one["seed"] for one in plain]
    assert [one["progress"] for one in episodes] != [one["progress"] for one in plain]


def test_steering_by_a_file_goes_to_another_process_and_is_gone_afterwards(diffusion, reward_file):
    steering = SteeringSettings(f"{reward_file}:low", scale=0.5)
    alone, parallel = (
        evaluate(diffusion, "tidy_drawer", episodes=2, processes=processes, steering=steering) for processes in (1, 2)
    )
    assert alone.rollouts == parallel.rollouts
    assert diffusion.steering is None


def test_a_policy_steered_by_a_function_of_its_own_stays_in_one_process(diffusion, reward_file):
    diffusion.steering = SteeringSettings(f"{reward_file}:low").load()
    try:
        with pytest.raises(ConfigError, match="steered by a function runs in one process"):
            evaluate(diffusion, "tidy_drawer", episodes=2, processes=2)
    finally:
        diffusion.steering = None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("steering.reward=low",), "give FILE.py:FUNCTION"),
        (("steering.reward=nowhere.py:low",), "there is no file nowhere.py"),
        (("steering.reward={file}:lower",), "has no function 'lower'"),
        (("steering.reward={file}:count",), "has no function 'count'"),
        (("steering.reward={file}:late",), "fails with KeyError"),
        (("steering.reward={file}:flat",), "has shape (); it must be (1, 1)"),
        (("steering.reward={file}:fixed",), "does not depend on the actions"),
        (("steering.reward={file}:plain",), "returns float; it must be a torch tensor"),
        (("steering.reward={file}:low", "steering.scale=0"), "steering scale=0"),
        (("steering.rewrd=x",), "did you mean 'steering.reward'"),
    ],
)
def test_a_reward_that_cannot_steer_is_told_before_anything_is_written(
    run_command, diffusion, reward_file, tmp_path, words, told
):
    words = [word.format(file=reward_file) for word in words]
    assert told in refused(run_command, tmp_path, diffusion, *words)


def test_a_reward_file_that_fails_is_named(run_command, diffusion, tmp_path):
    (tmp_path / "broken.py").write_text("import torc\n")
    errors = refused(run_command, tmp_path, diffusion, f"steering.reward={tmp_path / 'broken.py'}:low")
    assert "broken.py fails with ModuleNotFoundError: No module named 'torc'" in errors


def test_act_cannot_be_steered(run_command, tiny_act, reward_file, tmp_path):
    policy = drawer_policy(tmp_path / "act", tiny_act)
    assert "only diffusion policies can be steered" in refused(
        run_command, tmp_path, policy, f"steering.reward={reward_file}:low"
    )


def test_a_policy_trained_under_another_contract_is_refused_and_the_field_named(run_command, tiny_act, tmp_path):
    whole = RobotContract.load("tidy_drawer").to_dict()
    whole["rates"]["actions"] = 10.0
    other = RobotContract.from_dict(whole, source="other.yaml")
    policy = drawer_policy(tmp_path / "act", tiny_act, store={"contract_hash": other.hash, "contract": whole})
    errors = refused(run_command, tmp_path, policy, "contract=tidy_drawer")
    assert "does not fit the contract: contract hash" in errors
    assert "rates.actions: 10.0 in the checkpoint, 20.0 in this contract" in errors
    assert "no such file" in refused(run_command, tmp_path, policy, "contract=nowhere.yaml")
    unnamed = drawer_policy(tmp_path / "unnamed", tiny_act)
    errors = refused(run_command, tmp_path, unnamed, "contract=so101")
    assert "joints: its actions have 7 values, the contract 6 joints" in errors


def test_a_policy_of_the_contract_runs_and_one_that_names_none_is_told(run_command, tiny_act, tmp_path):
    contract = RobotContract.load("tidy_drawer")
    for number, store in enumerate(({"contract_hash": contract.hash}, {})):
        policy = drawer_policy(tmp_path / f"act_{number}", tiny_act, store=store)
        code, printed, errors = run_command(
            "eval-policy", f"policy={policy.folder}", "episodes=1", "contract=tidy_drawer", "processes=1",
            f"out={tmp_path / f'eval_{number}'}",
        )  # fmt: skip
        assert code == 0, errors
        assert ("does not say under which robot contract" in printed) == (not store)


def test_joints_in_another_order_are_refused(run_command, tiny_act, tmp_path):
    names = [STATE_NAMES[1], STATE_NAMES[0], *STATE_NAMES[2:]]
    policy = drawer_policy(tmp_path / "act", tiny_act, actions=names)
    errors = refused(run_command, tmp_path, policy)
    assert f"{names[0]!r} as value 0 of its actions, which is {names[1]!r} in tidy_drawer" in errors
