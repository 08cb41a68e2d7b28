"""Other policies of LeRobot's: a loss per sample through their public ``forward``.

SmolVLA is LeRobot's own class on a tiny language model with random weights; its text processor is replaced, since it
can only be had from the hub. pi0 has a file of its own.
"""

from __future__ import annotations

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robo_core.errors import ConfigError, ModelError, StoreError
from robo_datasets import DemoStore
from robo_policies import load_policy, train_lerobot_policy, train_policy
from robo_policies.cloning.act import ActLearner
from robo_policies.cloning.adapter import PolicyLearner, span_of
from robo_policies.cloning.images import Pictures
from robo_policies.cloning.learner import Learner, as_tensors
from robo_policies.cloning.lerobot_training import as_configured, with_quantiles
from robo_policies.cloning.settings import WeightSettings
from robo_policies.cloning.windows import Span, Windows, load_demonstrations, normalisation
from robo_rm.training.budget import Budget

FRONT = "observation.images.front"


@pytest.fixture(scope="module")
def act(point_store, tiny_act):
    demonstrations = load_demonstrations(point_store)
    dims = {key: values.shape[1] for key, values in demonstrations.arrays.items()}
    settings = dataclasses.replace(tiny_act, use_vae=False, dropout=0.0)
    weights = np.linspace(0.1, 1, demonstrations.frames).astype(np.float32)
    statistics = normalisation(demonstrations, weights)
    windows = Windows(demonstrations, weights, Span(settings.chunk_size), statistics)
    return SimpleNamespace(make=lambda: ActLearner(settings, dims), windows=windows, settings=settings, dims=dims)


def test_a_policy_without_losses_per_sample_is_asked_sample_by_sample(act):
    torch.manual_seed(0)
    learner = act.make()
    adapted = PolicyLearner(learner.policy)
    assert adapted.span == learner.span
    batch = act.windows.batch(0, 6, 0)
    torch.testing.assert_close(adapted.losses(batch), learner.losses(batch), rtol=1e-5, atol=1e-6)


def test_what_is_trained_on_is_told_before_it_is(act, point_store, quick, tmp_path, capsys):
    how = dataclasses.replace(quick, batch_size=8)
    store = DemoStore.open(shutil.copytree(point_store.path, tmp_path / "copy.zarr"))
    for number, uuid in enumerate(store.uuids[:2]):
        store.set_task(uuid, f"task {number}")
    train_lerobot_policy(act.make().policy, store, tmp_path / "a", Budget(1), training=how)
    told = capsys.readouterr()
    assert told.out.index("Episodes") < told.out.index("warning: the episodes have")
    assert "'task 0'" in told.out
    assert "this policy reads none: it learns a mixture" in told.out
    foreign = tmp_path / "dataset"
    (foreign / "meta").mkdir(parents=True)
    (foreign / "meta/info.json").write_text("{}")
    with pytest.raises(ConfigError, match="no robo-rm command wrote there"):
        train_lerobot_policy(act.make().policy, point_store, foreign, Budget(1), training=how)


def test_it_is_trained_like_ours_and_saved_so_that_it_loads(act, point_store, quick, tmp_path):
    how, losses = dataclasses.replace(quick, batch_size=8), []
    weights = WeightSettings("success_only")
    torch.manual_seed(0)
    out = tmp_path / "adapted"
    for _ in range(2):  # the second call finds the first one done
        losses.append(train_lerobot_policy(act.make().policy, point_store, out, Budget(4), weights, how).losses)
    ours = train_policy(point_store, tmp_path / "ours", Budget(4), act.settings, weights, how)
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_allclose(losses[0], ours.losses, rtol=1e-4)
    one = {"observation.state": np.full(2, 0.3), "observation.environment_state": np.full(3, 0.2)}
    np.testing.assert_allclose(load_policy(out).act(one), ours.policy.act(one), atol=1e-3)
    with pytest.raises(ConfigError, match="holds a run with seed=0, not 1"):
        train_lerobot_policy(act.make().policy, point_store, out, Budget(4), weights, how, seed=1)


@pytest.mark.parametrize("mode", ["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"])
def test_vectors_are_normalised_as_lerobots_own_processor_does_it(act, point_store, mode):
    from lerobot.configs.types import NormalizationMode

    policy = act.make().policy
    policy.config.normalization_mapping = dict.fromkeys(("STATE", "ENV", "ACTION"), NormalizationMode(mode))
    demonstrations = load_demonstrations(point_store)
    weights = np.where(np.arange(demonstrations.frames) % 3, 1, 0).astype(np.float32)
    statistics = with_quantiles(normalisation(demonstrations, weights), demonstrations, weights)
    ours = Windows(demonstrations, weights, Span(1), as_configured(policy.config, statistics)).gather(np.arange(50))
    theirs, _ = Learner.processors(PolicyLearner(policy), as_tensors(statistics))
    raw = {key: torch.from_numpy(values[:50]) for key, values in demonstrations.arrays.items()}
    expected = theirs(raw)
    for key in ("observation.state", "observation.environment_state"):
        torch.testing.assert_close(ours[key], expected[key], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours["action"][:, 0], expected["action"], rtol=1e-4, atol=1e-5)


def test_pictures_are_left_as_they_are_where_the_configuration_says_nothing_and_never_sorted_by_quantiles(act):
    config = act.make().policy.config
    statistics = {FRONT: {"mean": np.full(3, 0.5), "std": np.full(3, 0.2), "min": np.zeros(3), "max": np.ones(3)}}
    config.normalization_mapping = {}
    found = as_configured(config, statistics)[FRONT]
    assert (found["mean"].tolist(), found["std"].tolist()) == ([0.0] * 3, [1.0] * 3)
    config.normalization_mapping = {"VISUAL": SimpleNamespace(value="QUANTILES")}
    with pytest.raises(ConfigError, match="ACTConfig normalises VISUAL by QUANTILES, which is not supported"):
        as_configured(config, statistics)


def test_a_store_that_lacks_what_a_policy_takes_is_refused(act, smolvla, point_store, picture_store, tmp_path):
    with pytest.raises(StoreError, match=r"no camera 'observation.images.front', which the policy takes"):
        train_lerobot_policy(smolvla, point_store, tmp_path / "policy", Budget(1))
    with pytest.raises(StoreError, match=r"no feature 'observation.environment_state', which the policy takes"):
        train_lerobot_policy(act.make().policy, picture_store, tmp_path / "policy", Budget(1))
    wide = ActLearner(act.settings, {**act.dims, "action": 3}).policy
    with pytest.raises(StoreError, match=r"'action' has shape \(2,\), and the policy takes \(3,\)"):
        train_lerobot_policy(wide, point_store, tmp_path / "policy", Budget(1))
    assert not (tmp_path / "policy").exists()


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


def smolvla_losses(smolvla, batch, padded):
    learner = PolicyLearner(smolvla, WORDS)
    assert learner.span == Span(4)
    torch.manual_seed(1)
    return learner.losses({**batch, "action_is_pad": padded})


def test_smolvla_gives_its_own_loss_per_sample_where_nothing_is_padded(smolvla, smolvla_windows):
    batch = smolvla_windows.batch(0, 5, 0)
    whole = torch.zeros_like(batch["action_is_pad"])
    losses = smolvla_losses(smolvla, batch, whole)
    assert losses.shape == (5,)
    torch.manual_seed(1)
    told = {key: value.expand(5, -1) for key, value in WORDS.items()}
    theirs, _ = smolvla.forward({**batch, **told, "action_is_pad": whole}, reduction="none")
    torch.testing.assert_close(losses, theirs, rtol=1e-5, atol=1e-6)


def test_the_loss_of_a_sample_is_the_mean_over_its_valid_actions_in_every_version_of_smolvla(smolvla, smolvla_windows):
    batch = smolvla_windows.batch(0, 5, 0)
    losses = []
    for valid in ([0], [1], [0, 1]):
        padded = torch.ones_like(batch["action_is_pad"])
        padded[:, valid] = False
        losses.append(smolvla_losses(smolvla, batch, padded))
    torch.testing.assert_close((losses[0] + losses[1]) / 2, losses[2], rtol=1e-4, atol=1e-6)


def test_padding_trains_nothing_in_smolvla_either(smolvla, smolvla_windows):
    learner = PolicyLearner(smolvla, WORDS)
    batch = smolvla_windows.gather(np.array([13, 14, 15]))
    batch["action_is_pad"][:, :] = True
    torch.manual_seed(1)
    assert float(learner.losses(batch).abs().max().detach()) == 0


def test_smolvla_is_trained_with_weights_and_its_frozen_part_stays(smolvla, new_picture_store, quick, tmp_path):
    store = new_picture_store
    weights = store.derive("weights", provenance={"mode": "made up"})
    for uuid in store.uuids:
        weights.write(uuid, {"weight": np.linspace(0, 1, store.lengths[uuid], dtype=np.float32)})
    before = {name: value.clone() for name, value in smolvla.named_parameters()}
    result = train_lerobot_policy(
        smolvla, store, tmp_path / "policy", Budget(3), WeightSettings("rabc"),
        dataclasses.replace(quick, batch_size=4), constant=WORDS, processors=False,
    )  # fmt: skip
    assert np.isfinite(result.losses).all()
    assert (tmp_path / "policy" / "model.safetensors").exists()
    for name, value in smolvla.named_parameters():
        assert value.requires_grad or torch.equal(value, before[name]), name
    moved = [name for name, value in smolvla.named_parameters() if not torch.equal(value, before[name])]
    assert any("lm_expert" in name for name in moved)


@pytest.fixture
def new_picture_store(picture_store, tmp_path):
    """A copy that weights may be added to."""
    shutil.copytree(picture_store.path, tmp_path / "pictures.zarr")
    return DemoStore.open(tmp_path / "pictures.zarr")


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
