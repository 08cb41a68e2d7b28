"""LeRobot's pi0 through the adapter: its own policy class, small and with random weights.

It takes the sizes of its networks from tables in its code; here the tables hold small sizes. That of LeRobot 0.4.4 runs
on a changed `transformers` (the extra ``lerobot[pi]``): what it calls and the release lacks is given to it while these
tests run, without the conditioning that pi0 does not use. That of 0.6 runs on the release.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from robo_policies.cloning.adapter import PolicyLearner
from robo_policies.cloning.images import Pictures
from robo_policies.cloning.trainer import clone
from robo_policies.cloning.windows import Span, Windows, load_demonstrations, normalisation
from robo_rm.training.budget import Budget

FRONT = "observation.images.front"
WORDS = {
    "observation.language.tokens": torch.tensor([3, 5, 7, 0]),
    "observation.language.attention_mask": torch.tensor([True, True, True, False]),
}


@pytest.fixture(scope="module")
def patch():
    """Undone after these tests; holds what pi0 of LeRobot 0.4.4 asks of `transformers` and the release lacks."""
    pytest.importorskip("transformers")
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("lerobot.policies.pi_gemma") is None:
            change_transformers(patch)
        yield patch


def change_transformers(patch: pytest.MonkeyPatch) -> None:
    from transformers.models import siglip
    from transformers.models.gemma import modeling_gemma

    plain = modeling_gemma.GemmaRMSNorm.forward
    check = ModuleType("transformers.models.siglip.check")
    check.check_whether_transformers_replace_is_installed_correctly = lambda: True

    def norm(self, values, cond=None):
        assert cond is None
        return plain(self, values), None

    def residual(values, added, gate):
        assert gate is None
        return values + added

    patch.setitem(sys.modules, check.__name__, check)
    patch.setattr(siglip, "check", check, raising=False)
    patch.setattr(modeling_gemma.GemmaRMSNorm, "forward", norm)
    patch.setattr(modeling_gemma, "_gated_residual", residual, raising=False)


@pytest.fixture(scope="module")
def pi0(patch):
    """LeRobot's PI0Policy with one layer of width 16 for each of its networks."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.pi0 import modeling_pi0
    from lerobot.policies.pi0.configuration_pi0 import PI0Config
    from transformers import SiglipVisionConfig

    names = ("PaliGemmaForConditionalGenerationWithPiGemma", "PaliGemmaForConditionalGeneration")
    name = next(name for name in names if hasattr(modeling_pi0, name))
    whole = getattr(modeling_pi0, name)

    def pali_gemma(config):
        config.vision_config = SiglipVisionConfig(
            image_size=config.vision_config.image_size, patch_size=14, hidden_size=16, intermediate_size=32,
            num_hidden_layers=1, num_attention_heads=2, projection_dim=16,
        )  # fmt: skip
        return whole(config)

    sizes = modeling_pi0.GemmaConfig(width=16, depth=1, mlp_dim=32, num_heads=8, num_kv_heads=1, head_dim=8)
    patch.setattr(modeling_pi0, name, pali_gemma)
    patch.setattr(modeling_pi0, "get_gemma_config", lambda variant: sizes)
    config = PI0Config(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            FRONT: PolicyFeature(FeatureType.VISUAL, (3, 36, 48)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        chunk_size=4, n_action_steps=2, max_state_dim=4, max_action_dim=4, image_resolution=(28, 28),
        train_expert_only=True, device="cpu", push_to_hub=False,
    )  # fmt: skip
    torch.manual_seed(0)
    return modeling_pi0.PI0Policy(config)


@pytest.fixture(scope="module")
def windows(picture_store):
    demonstrations = load_demonstrations(picture_store)
    pictures = Pictures(picture_store, demonstrations.uuids, demonstrations.starts, {FRONT: (36, 48)}, 1.0)
    weights = np.linspace(0.1, 1, demonstrations.frames).astype(np.float32)
    statistics = normalisation(demonstrations, weights, pictures)
    # pi0 takes pictures in [0, 1] as they are.
    statistics[FRONT] |= {"mean": np.zeros((3, 1, 1), np.float32), "std": np.ones((3, 1, 1), np.float32)}
    return Windows(demonstrations, weights, Span(4), statistics, "cpu", pictures)


def test_pi0_gives_a_loss_per_sample_whose_mean_is_its_own_loss(pi0, windows):
    learner = PolicyLearner(pi0, WORDS)
    assert learner.span == Span(4)
    batch = windows.batch(0, 5, 0)
    torch.manual_seed(1)
    losses = learner.losses(batch)
    assert losses.shape == (5,)
    assert float(losses.std().detach()) > 0
    whole = {**batch, **{key: value.expand(5, -1) for key, value in WORDS.items()}}
    torch.manual_seed(1)
    theirs, _ = pi0.forward(whole)
    assert float(losses.mean().detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_a_sample_of_weight_zero_trains_nothing_in_pi0(pi0, windows):
    learner = PolicyLearner(pi0, WORDS)
    gradients = []
    for changed in (0.0, 5.0):
        batch = windows.batch(0, 3, 0)
        batch["action"][0] += changed
        torch.manual_seed(1)
        pi0.zero_grad()
        (learner.losses(batch) * torch.tensor([0.0, 0.5, 1.5])).mean().backward()
        gradients.append(pi0.model.action_out_proj.weight.grad.clone())
    assert torch.equal(gradients[0], gradients[1])
    assert float(gradients[0].abs().max()) > 0


def test_that_pi0_trains_on_padding_is_told_once(pi0, windows, capsys):
    learner = PolicyLearner(pi0, WORDS)
    last = int(np.flatnonzero(np.diff(windows._ends))[0])
    for _ in range(2):
        learner.losses(windows.gather(np.array([last])))
    assert capsys.readouterr().out.count("PI0Policy trains on what lies past the end of an episode too") == 1


def test_pi0_is_trained_with_weights_and_its_frozen_part_stays(pi0, windows, quick, tmp_path):
    before = {name: value.clone() for name, value in pi0.named_parameters()}
    settings = dataclasses.replace(quick, batch_size=4)
    result = clone(PolicyLearner(pi0, WORDS), windows, Budget(3), settings, 0, tmp_path, {})
    assert np.isfinite(result.losses).all()
    moved = {name for name, value in pi0.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert not any(".paligemma." in name for name in moved)
    assert any(".gemma_expert." in name for name in moved)
