from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

from robo_core.errors import ConfigError, ModelError
from robo_policies import evaluate, load_policy, train_policy
from robo_policies.cloning.diffusion import DiffusionLearner
from robo_policies.cloning.settings import DiffusionSettings
from robo_policies.cloning.windows import Windows, load_demonstrations, normalisation
from robo_rm.training import checkpoint
from robo_rm.training.budget import Budget


@pytest.fixture(scope="module")
def demonstrations(point_store):
    return load_demonstrations(point_store)


def fresh(settings, demonstrations):
    torch.manual_seed(0)
    return DiffusionLearner(settings, {key: values.shape[1] for key, values in demonstrations.arrays.items()})


def windows_for(learner, demonstrations):
    weights = np.ones(demonstrations.frames, np.float32)
    return Windows(demonstrations, weights, learner.span, normalisation(demonstrations, weights))


def observations(count=4, steps=1):
    random = np.random.default_rng(0)
    return {
        "observation.state": random.uniform(-1, 1, (count, steps, 2)).astype(np.float32),
        "observation.environment_state": random.uniform(-1, 1, (count, steps, 3)).astype(np.float32),
    }


def lerobots(folder):
    theirs = DiffusionPolicy.from_pretrained(folder)
    pre, post = make_pre_post_processors(
        theirs.config, str(folder), preprocessor_overrides={"device_processor": {"device": "cpu"}}
    )
    return theirs, pre, post


def test_it_learns_the_toy_task(diffusion_policy, point_env):
    assert diffusion_policy.losses[-50:].mean() < 0.3 * diffusion_policy.losses[:20].mean()
    assert evaluate(diffusion_policy.policy, point_env, episodes=20, seed=3).success_rate >= 0.9


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_the_loss_of_a_sample_is_the_mean_over_its_valid_actions(demonstrations, tiny_diffusion, prediction):
    """The same on every LeRobot: 0.4.4 divides by the horizon, padding included, and 0.6 by the valid entries."""
    learner = fresh(dataclasses.replace(tiny_diffusion, prediction_type=prediction), demonstrations)
    windows = windows_for(learner, demonstrations)
    start, end = demonstrations.starts[:2]
    for frame in (start + 4, end - 1):
        batch = windows.gather(np.array([frame]))
        torch.manual_seed(3)
        theirs, _ = learner.policy.forward(dict(batch))
        torch.manual_seed(3)
        ours = learner.losses(batch)
        valid = float((~batch["action_is_pad"]).float().mean())
        assert (valid < 1) == (frame == end - 1)
        ratio = float(theirs.detach()) / float(ours.detach())
        assert min(abs(ratio - valid), abs(ratio - 1)) < 1e-5


def test_frames_with_padding_train_as_much_as_others(demonstrations, tiny_diffusion):
    learner = fresh(dataclasses.replace(tiny_diffusion, kernel_size=1, down_dims=[16]), demonstrations)
    batch = windows_for(learner, demonstrations).batch(0, 1024, 0)
    torch.manual_seed(1)
    with torch.no_grad():
        error = learner.losses(batch)
    whole = ~batch["action_is_pad"].any(1)
    mostly = batch["action_is_pad"].float().mean(1) > 0.5
    # Of noise alone; where padding counted, the second would be below half of the first.
    assert float(error[mostly].mean() / error[whole].mean()) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("steps", [1, 2])
def test_lerobot_loads_the_folder_and_gives_the_same_actions(point_store, tiny_diffusion, quick, tmp_path, steps):
    settings = dataclasses.replace(tiny_diffusion, observation_steps=steps, chunk_size=9 - steps)
    ours = train_policy(point_store, tmp_path / "policy", Budget(5), settings, training=quick).policy
    theirs, pre, post = lerobots(ours.folder)
    noise = torch.randn(4, 8, 2, generator=torch.Generator().manual_seed(1))
    seen = observations(4, steps)
    chunks = ours.act(seen, noise.numpy())
    assert chunks.shape == (4, 9 - steps, 2)
    for index in range(4):
        theirs.reset()
        for step in range(steps - 1):  # fill its queue with what came before
            theirs.select_action(pre({key: torch.from_numpy(value[index, step]) for key, value in seen.items()}))
            theirs._queues["action"].clear()
        one = pre({key: torch.from_numpy(value[index, -1]) for key, value in seen.items()})
        for number in range(ours.execution_horizon):
            action = post(theirs.select_action(one, noise=noise[index : index + 1]))[0].numpy()
            np.testing.assert_allclose(chunks[index, number], action, atol=1e-5)


def test_ddpm_gives_the_same_actions_from_the_same_seed(point_store, tiny_diffusion, quick, tmp_path):
    settings = dataclasses.replace(
        tiny_diffusion, noise_scheduler_type="DDPM", num_train_timesteps=10, num_inference_steps=10
    )
    ours = train_policy(point_store, tmp_path / "policy", Budget(5), settings, training=quick).policy
    theirs, pre, post = lerobots(ours.folder)
    one = {key: values[0, 0] for key, values in observations(1).items()}
    ours.reset()
    chunk = ours.act(one)
    torch.manual_seed(0)
    for number in range(ours.execution_horizon):
        action = post(theirs.select_action(pre({key: torch.from_numpy(value) for key, value in one.items()})))
        np.testing.assert_allclose(chunk[number], action[0].numpy(), atol=1e-5)


def test_a_checkpoint_that_lerobot_made_runs(tmp_path):
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

    config = DiffusionConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (3,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        horizon=16,
        n_action_steps=8,
        down_dims=(16, 16),
        num_inference_steps=3,
        device="cpu",
        push_to_hub=False,
    )
    theirs = DiffusionPolicy(config)
    bounds = {key: {"min": -torch.ones(size), "max": torch.ones(size)} for key, size in
              (("observation.state", 2), ("observation.environment_state", 3), ("action", 2))}  # fmt: skip
    theirs.save_pretrained(tmp_path)
    for pipeline in make_pre_post_processors(config, dataset_stats=bounds):
        pipeline.save_pretrained(tmp_path)
    ours = load_policy(tmp_path)
    assert (ours.observation_steps, ours.chunk_size, ours.execution_horizon) == (2, 15, 8)
    one = {key: values[0, 0] for key, values in observations(1).items()}
    assert ours.act(one).shape == (15, 2)
    with pytest.raises(ModelError, match=r"takes 2 observations; 'observation\.state' has 3"):
        ours.act(observations(1, 3))


def test_after_a_reset_the_same_observation_gets_the_same_actions(diffusion_policy):
    policy, one = diffusion_policy.policy, {key: values[:, 0] for key, values in observations(3).items()}
    policy.reset()
    first, second = policy.act(one), policy.act(one)
    assert not np.array_equal(first, second)
    policy.reset()
    np.testing.assert_array_equal(policy.act(one), first)


class _KilledError(Exception):
    pass


def test_a_killed_run_continues_to_the_same_weights(point_store, tiny_diffusion, quick, tmp_path, monkeypatch):
    often = dataclasses.replace(quick, checkpoint_seconds=1e-9)
    whole = train_policy(point_store, tmp_path / "whole", Budget(9), tiny_diffusion, training=often)
    write, written = checkpoint.write_atomically, []

    def die_after_four(path, data):
        write(path, data)
        written.append(path)
        if len(written) == 4:
            raise _KilledError

    monkeypatch.setattr(checkpoint, "write_atomically", die_after_four)
    with pytest.raises(_KilledError):
        train_policy(point_store, tmp_path / "killed", Budget(9), tiny_diffusion, training=often)
    monkeypatch.undo()
    torch.manual_seed(12345)  # another process would start with other noise
    resumed = train_policy(point_store, tmp_path / "killed", Budget(9), tiny_diffusion, training=often)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    for name in ("model.safetensors", "policy_preprocessor.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chunk_size": 10, "execution_horizon": 5}, r"make 10 actions.* multiple of 4 .*chunk_size=8"),
        ({"observation_steps": 2}, "try policy.chunk_size=19"),
        ({"down_dims": [20]}, r"down_dims=\[20\]: give multiples of 8"),
        ({"kernel_size": 4}, "kernel_size=4 must be odd"),
        ({"num_inference_steps": 200}, "more than policy.num_train_timesteps=100"),
        ({"noise_scheduler_type": "DDMP"}, "use DDIM, DDPM"),
        ({"vision_backbone": "vgg"}, "use resnet18"),
        ({"image_size": [8, 8]}, r"image_size=\[8, 8\]"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        DiffusionSettings(**changes).validate()
