"""Adam over one vector of all parameters is Adam; a part of the critics is what it is among all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from robo_policies.rl.modules.actor_critic import CriticEnsemble
from robo_policies.rl.modules.flat_adam import FlatAdam, flatten


def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_one_vector_of_all_parameters_steps_as_the_parameters_one_by_one(decay: float) -> None:
    flat, plain = small(), small()
    ours, theirs = FlatAdam(flat, 1e-2, decay), torch.optim.AdamW(plain.parameters(), 1e-2, weight_decay=decay)
    for seed in range(20):
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(seed))
        for network, steps in ((flat, ours), (plain, theirs)):
            steps.zero_grad()
            network(x).square().mean().backward()
            steps.step()
    for mine, other in zip(flat.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)
    assert torch.equal(ours.values, torch.cat([p.detach().ravel() for p in flat.parameters()]))


def test_a_flattened_network_says_the_same_and_follows_its_vector_and_what_is_loaded_into_it():
    network, x = small(), torch.ones(1, 3)
    before, held = network(x), copy.deepcopy(network.state_dict())
    whole = flatten(network)
    assert torch.equal(network(x), before)
    whole.zero_()
    assert torch.equal(network(x), torch.zeros(1, 2))
    network.load_state_dict(held)
    assert torch.equal(network(x), before)
    assert torch.equal(whole, torch.cat([value.ravel() for value in held.values()]))


def test_chosen_critics_are_those_of_all():
    critics = CriticEnsemble(4, 2, 16, 5)
    for part in (*critics.gains, *critics.shifts):
        nn.init.normal_(part)
    seen, action = torch.randn(7, 4), torch.randn(7, 2)
    which = torch.tensor([3, 1])
    assert torch.allclose(critics(seen, action, which), critics(seen, action)[which], atol=1e-6)
