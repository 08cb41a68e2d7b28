"""Other policies of LeRobot's: a loss per sample through their public ``forward``.

SmolVLA is LeRobot's own class on a tiny language model with random weights; its text processor is replaced, since it
can only be had from the hub. pi0 has a file of its own.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robo_datasets.errors import ConfigError, ModelError
from robo_policies import load_policy
from robo_policies.cloning.act import ActLearner
from robo_policies.cloning.adapter import PolicyLearner, span_of
from robo_policies.cloning.pictures import Pictures
from robo_policies.cloning.settings import Budget
from robo_policies.cloning.trainer import clone
from robo_policies.cloning.windows import Span, Windows, load_demonstrations, normalisation

FRONT = "observation.images.front"


@pytest.fixture(scope="module")
def act(point_store, tiny_act):
    demonstrations = load_demonstrations(point_store)
    dims = {key: values.shape[1] for key, values in demonstrations.arrays.items()}
    settings = dataclasses.replace(tiny_act, use_vae=False, dropout=0.0)
    weights = np.linspace(0.1, 1, demonstrations.frames).astype(np.float32)
    statistics = normalisation(demonstrations, weights)
    windows = Windows(demonstrations, weights, Span(settings.chunk_size), statistics)
    return SimpleNamespace(make=lambda: ActLearner(settings, dims), windows=windows, statistics=statistics)


def test_a_policy_without_losses_per_sample_is_asked_sample_by_sample(act):
    torch.manual_seed(0)
    learner = act.make()
    adapted = PolicyLearner(learner.policy)
    assert adapted.span == learner.span
    batch = act.windows.batch(0, 6, 0)
    torch.testing.assert_close(adapted.losses(batch), learner.losses(batch), rtol=1e-5, atol=1e-6)


def test_it_is_trained_like_ours_and_saved_so_that_it_loads(act, quick, tmp_path):
    results = []
    for adapt in (False, True):
        torch.manual_seed(0)
        learner = act.make()
        if adapt:
            tensors = {k: {n: torch.from_numpy(v) for n, v in s.items()} for k, s in act.statistics.items()}
            learner = PolicyLearner(learner.policy, processors=learner.processors(tensors))
        settings = dataclasses.replace(quick, batch_size=8)
        results.append(clone(learner, act.windows, Budget(4), settings, 0, tmp_path / str(adapt), {}).losses)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4)
    learner.save(tmp_path / "saved", act.statistics)
    one = {"observation.state": np.zeros(2), "observation.environment_state": np.zeros(3)}
    assert load_policy(tmp_path / "saved").act(one).shape == (5, 2)


@pytest.fixture(scope="module")
def smolvla(tmp_path_factory):
    """LeRobot's SmolVLA with two small layers instead of thirty-two large ones, and random weights."""
    transformers = pytest.importorskip("transformers")
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.smolvla import modeling_smolvla, smolvlm_with_expert
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig

    folder = tmp_path_factory.mktemp("vlm")
    text = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64,
    }  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    transformers.SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=2).save_pretrained(folder)
    config = SmolVLAConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            FRONT: PolicyFeature(FeatureType.VISUAL, (3, 36, 48)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        vlm_model_name=str(folder), num_vlm_layers=2, chunk_size=4, n_action_steps=2, max_state_dim=4, max_action_dim=4,
        resize_imgs_with_padding=(32, 32), device="cpu", push_to_hub=False,
    )  # fmt: skip
    tokenizer = SimpleNamespace(fake_image_token_id=1, global_image_token_id=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            smolvlm_with_expert.AutoProcessor, "from_pretrained", lambda _: SimpleNamespace(tokenizer=tokenizer)
        )
        torch.manual_seed(0)
        return modeling_smolvla.SmolVLAPolicy(config)


@pytest.fixture(scope="module")
def smolvla_windows(picture_store):
    demonstrations = load_demonstrations(picture_store)
    pictures = Pictures(picture_store, demonstrations.uuids, demonstrations.starts, {FRONT: (36, 48)}, 1.0)
    weights = np.ones(demonstrations.frames, np.float32)
    statistics = normalisation(demonstrations, weights, pictures)
    # SmolVLA takes pictures in [0, 1] as they are.
    statistics[FRONT] |= {"mean": np.zeros((3, 1, 1), np.float32), "std": np.ones((3, 1, 1), np.float32)}
    return Windows(demonstrations, weights, Span(4), statistics, "cpu", pictures)


WORDS = {
    "observation.language.tokens": torch.tensor([3, 5, 7, 0]),
    "observation.language.attention_mask": torch.tensor([True, True, True, False]),
}


def test_smolvla_gives_a_loss_per_sample_whose_mean_is_its_own_loss(smolvla, smolvla_windows):
    learner = PolicyLearner(smolvla, WORDS)
    assert learner.span == Span(4)
    batch = smolvla_windows.batch(0, 5, 0)
    torch.manual_seed(1)
    losses = learner.losses(batch)
    assert losses.shape == (5,)
    whole = {**batch, **{key: value.expand(5, -1) for key, value in WORDS.items()}}
    torch.manual_seed(1)
    theirs, _ = smolvla.forward(whole | {"actions_id_pad": batch["action_is_pad"]})
    assert float(losses.mean().detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_padding_trains_nothing_in_smolvla_either(smolvla, smolvla_windows):
    learner = PolicyLearner(smolvla, WORDS)
    batch = smolvla_windows.gather(np.array([13, 14, 15]))
    batch["action_is_pad"][:, :] = True
    torch.manual_seed(1)
    assert float(learner.losses(batch).abs().max().detach()) == 0


def test_smolvla_is_trained_with_weights_and_its_frozen_part_stays(smolvla, smolvla_windows, quick, tmp_path):
    before = {name: value.clone() for name, value in smolvla.named_parameters()}
    settings = dataclasses.replace(quick, batch_size=4)
    result = clone(PolicyLearner(smolvla, WORDS), smolvla_windows, Budget(3), settings, 0, tmp_path, {})
    assert np.isfinite(result.losses).all()
    for name, value in smolvla.named_parameters():
        assert value.requires_grad or torch.equal(value, before[name]), name
    moved = [name for name, value in smolvla.named_parameters() if not torch.equal(value, before[name])]
    assert any("lm_expert" in name for name in moved)


def test_a_policy_that_gives_one_number_for_a_batch_is_refused(act):
    class Odd(torch.nn.Module):
        config = SimpleNamespace(action_delta_indices=[0, 1], observation_delta_indices=None)

        def forward(self, batch, reduction="mean"):
            return batch["action"].mean(), {}

    with pytest.raises(ModelError, match=r"Odd gives a loss of shape \(\) for 3 samples"):
        PolicyLearner(Odd()).losses(act.windows.batch(0, 3, 0))


@pytest.mark.parametrize(
    ("actions", "seen", "expected"),
    [
        ([0, 1, 2], None, Span(3)),
        ([-1, 0, 1, 2], [-1, 0], Span(3, past=1, stacked=True)),
        (None, None, "takes the actions at frames"),
        ([0, 2, 4], None, "only frames in a row"),
        ([0, 1], [-4, 0], "only frames in a row"),
        ([0, 1], [-1, 0], "observations from -1 on and actions from 0 on"),
    ],
)
def test_the_frames_a_policy_takes_are_read_from_its_configuration(actions, seen, expected):
    config = SimpleNamespace(action_delta_indices=actions, observation_delta_indices=seen)
    if isinstance(expected, Span):
        assert span_of(config) == expected
    else:
        with pytest.raises(ConfigError, match=expected):
            span_of(config)
