from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch

from robo_core.errors import ConfigError, ModelError
from robo_policies.cloning.act import ActLearner
from robo_policies.cloning.settings import ActSettings, CloningSettings
from robo_policies.cloning.trainer import CHECKPOINT, clone
from robo_policies.cloning.windows import Span, Windows, load_demonstrations, normalisation
from robo_rm.training import checkpoint
from robo_rm.training.budget import Budget
from robo_rm.training.engine import Engine


@pytest.fixture(scope="module")
def demonstrations(point_store):
    return load_demonstrations(point_store)


def samples(demonstrations, settings, weights=None, statistics=None):
    weights = np.ones(demonstrations.frames, np.float32) if weights is None else weights
    statistics = statistics or normalisation(demonstrations, weights)
    return Windows(demonstrations, weights, Span(settings.chunk_size), statistics)


def fresh(settings, demonstrations, seed=0):
    torch.manual_seed(seed)
    return ActLearner(settings, {key: values.shape[1] for key, values in demonstrations.arrays.items()})


def weights_of(learner):
    return {name: value.clone() for name, value in learner.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def trained(demonstrations, settings, training, folder, steps=12, **changes):
    learner = fresh(settings, demonstrations)
    windows = changes.pop("windows", None) or samples(demonstrations, settings)
    clone(learner, windows, Budget(steps), training, 0, folder, {"steps": steps, **changes})
    return weights_of(learner)


def test_training_reduces_the_loss_and_solves_the_toy_task(point_policy):
    losses = point_policy.losses
    assert losses[-40:].mean() < 0.25 * losses[:20].mean()
    assert point_policy.metrics["steps"] == 400


def test_inside_an_episode_the_loss_is_lerobots_own(demonstrations, tiny_act):
    settings = dataclasses.replace(tiny_act, dropout=0.0)
    learner = fresh(settings, demonstrations)
    whole = np.flatnonzero(demonstrations.ends - np.arange(demonstrations.frames) >= settings.chunk_size)
    batch = samples(demonstrations, settings).gather(whole[:40])
    learner.policy.train()
    assert not bool(batch["action_is_pad"].any())
    torch.manual_seed(3)
    theirs, _ = learner.policy.forward(batch)
    torch.manual_seed(3)
    ours = (learner.losses(batch) * batch["weight"]).mean()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)


def test_the_loss_of_a_sample_is_the_mean_over_its_valid_actions_whatever_is_padded(demonstrations, tiny_act):
    """LeRobot 0.4.4 divides by the whole chunk: its last frame, with one action of H, trains at 1 / H there."""
    settings = dataclasses.replace(tiny_act, dropout=0.0, use_vae=False)
    learner = fresh(settings, demonstrations)
    last = int(demonstrations.starts[1]) - 1
    batch = samples(demonstrations, settings).gather(np.arange(last - settings.chunk_size, last + 1))
    with torch.no_grad():
        predicted, _ = learner.network(learner._with_pictures(batch))
        error = (predicted - batch["action"]).abs()
        expected = [row[~pad].mean() for row, pad in zip(error, batch["action_is_pad"], strict=True)]
        ours = learner.losses(batch)
    torch.testing.assert_close(ours, torch.stack(expected), rtol=1e-5, atol=1e-6)
    assert (~batch["action_is_pad"]).sum(-1)[-1] == 1


def test_the_expected_loss_is_the_weighted_mean_over_the_data_set(demonstrations, tiny_act):
    settings = dataclasses.replace(tiny_act, use_vae=False, dropout=0.0)
    learner = fresh(settings, demonstrations)
    weights = np.random.default_rng(0).uniform(0, 1, demonstrations.frames).astype(np.float32)
    weights[::4] = 0
    windows = samples(demonstrations, settings, weights)
    epoch = windows.batch(0, len(windows), 0)
    drawn = float((learner.losses(epoch) * epoch["weight"]).mean().detach())
    every = windows.gather(np.arange(demonstrations.frames))
    losses = learner.losses(every).detach().numpy()
    assert drawn == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-5)


def test_padding_of_a_chunk_trains_nothing(demonstrations, tiny_act):
    learner = fresh(dataclasses.replace(tiny_act, dropout=0.0, use_vae=False), demonstrations)
    batch = samples(demonstrations, tiny_act).batch(0, 64, 0)
    changed = dict(batch, action=torch.where(batch["action_is_pad"][..., None], 99.0, batch["action"]))
    assert torch.equal(learner.losses(batch), learner.losses(changed))


def test_episodes_of_weight_zero_have_no_influence_at_all(demonstrations, tiny_act, quick, tmp_path):
    dropped = slice(int(demonstrations.starts[3]), int(demonstrations.starts[9]))
    weights = np.ones(demonstrations.frames, np.float32)
    weights[dropped] = 0
    spoilt = {key: values.copy() for key, values in demonstrations.arrays.items()}
    for values in spoilt.values():
        values[dropped] = 1000.0
    results = []
    for number, arrays in enumerate((demonstrations.arrays, spoilt)):
        changed = dataclasses.replace(demonstrations, arrays=arrays)
        windows = samples(changed, tiny_act, weights)
        results.append(trained(changed, tiny_act, quick, tmp_path / str(number), windows=windows))
    assert same(*results)


def test_weights_change_what_is_learned(demonstrations, tiny_act, quick, tmp_path):
    weights = np.linspace(0.1, 1, demonstrations.frames).astype(np.float32)
    windows = samples(demonstrations, tiny_act, weights)
    assert not same(
        trained(demonstrations, tiny_act, quick, tmp_path / "even"),
        trained(demonstrations, tiny_act, quick, tmp_path / "uneven", windows=windows),
    )


def test_the_same_seed_gives_the_same_policy(demonstrations, tiny_act, quick, tmp_path):
    first = trained(demonstrations, tiny_act, quick, tmp_path / "first")
    assert same(first, trained(demonstrations, tiny_act, quick, tmp_path / "second"))


class _KilledError(Exception):
    pass


def test_a_killed_run_continues_to_the_same_weights(demonstrations, tiny_act, quick, tmp_path, monkeypatch):
    uninterrupted = trained(demonstrations, tiny_act, quick, tmp_path / "whole")
    often = dataclasses.replace(quick, checkpoint_seconds=1e-9)
    write, written = checkpoint.write_atomically, []

    def die_after_five(path, data):
        write(path, data)
        written.append(path)
        if len(written) == 5:
            raise _KilledError

    monkeypatch.setattr(checkpoint, "write_atomically", die_after_five)
    with pytest.raises(_KilledError):
        trained(demonstrations, tiny_act, often, tmp_path / "killed")
    monkeypatch.undo()
    torch.manual_seed(12345)  # another process would start with other noise
    assert same(uninterrupted, trained(demonstrations, tiny_act, quick, tmp_path / "killed"))


def test_a_run_is_not_continued_with_other_settings(demonstrations, tiny_act, quick, tmp_path):
    trained(demonstrations, tiny_act, quick, tmp_path / "run" / "training", rate=1)
    with pytest.raises(ConfigError, match=r"run with rate=1, not 2; give another out="):
        trained(demonstrations, tiny_act, quick, tmp_path / "run" / "training", rate=2)


def test_a_damaged_state_says_what_to_delete(demonstrations, tiny_act, quick, tmp_path):
    trained(demonstrations, tiny_act, quick, tmp_path)
    state = tmp_path / CHECKPOINT
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"is damaged .*remove it to train again"):
        trained(demonstrations, tiny_act, quick, tmp_path)


def test_a_cap_in_minutes_cuts_off_and_a_longer_one_goes_on_to_the_same_weights(
    demonstrations, tiny_act, quick, tmp_path
):
    uncut = trained(demonstrations, tiny_act, quick, tmp_path / "uncut")
    learner = fresh(tiny_act, demonstrations)
    cut = clone(learner, samples(demonstrations, tiny_act), Budget(12, 1e-6), quick, 0, tmp_path / "cut", {"steps": 12})
    assert (cut.ended_by, len(cut.losses)) == ("minutes", 1)
    assert same(uncut, trained(demonstrations, tiny_act, quick, tmp_path / "cut"))


def test_the_learning_rate_follows_steps_whatever_time_they_take(
    demonstrations, tiny_act, quick, tmp_path, monkeypatch
):
    idle = trained(demonstrations, tiny_act, quick, tmp_path / "idle")
    step = Engine.step

    def slow(self, batch):
        time.sleep(0.02)
        return step(self, batch)

    monkeypatch.setattr(Engine, "step", slow)
    learner = fresh(tiny_act, demonstrations)
    budget = Budget(12, 5.0)
    clone(learner, samples(demonstrations, tiny_act), budget, quick, 0, tmp_path / "busy", {"steps": 12})
    assert same(idle, weights_of(learner))


def test_looking_at_held_out_frames_changes_nothing(demonstrations, tiny_act, quick, tmp_path):
    plain = trained(demonstrations, tiny_act, quick, tmp_path / "plain")
    learner = fresh(tiny_act, demonstrations)
    windows = samples(demonstrations, tiny_act)

    def measure():
        torch.rand(7)
        return float(learner.losses(windows.gather(np.arange(9))).mean())

    result = clone(learner, windows, Budget(12), quick, 0, tmp_path / "watched", {"steps": 12}, held_out=measure)
    assert [step for step, _ in result.held_out] == [2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    assert same(plain, weights_of(learner))


def test_a_loss_that_is_not_finite_stops_training(demonstrations, tiny_act, quick, tmp_path):
    statistics = normalisation(demonstrations, np.ones(demonstrations.frames, np.float32))
    statistics["action"]["mean"] = np.full(2, np.inf, np.float32)
    windows = samples(demonstrations, tiny_act, statistics=statistics)
    with pytest.raises(ModelError, match="step 1: the loss is"):
        trained(demonstrations, tiny_act, quick, tmp_path, windows=windows)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ActSettings(chunk_size=4, execution_horizon=5), "more than policy.chunk_size=4"),
        (ActSettings(dim_model=30), "multiple of twice"),
        (ActSettings(n_heads=0), "policy.n_heads=0 must be at least 1"),
        (ActSettings(dropout=1.0), r"in \[0, 1\)"),
        (ActSettings(kl_weight=-1), "not be negative"),
        (CloningSettings(batch_size=0), "training.batch_size=0"),
        (CloningSettings(learning_rate=float("nan")), "learning_rate=nan"),
        (CloningSettings(ema_decay=1.0), "ema_decay"),
        (CloningSettings(precision="fp8"), "use auto, fp32, bf16"),
        (CloningSettings(weight_decay=-1.0), "weight_decay"),
    ],
)
def test_settings_out_of_range_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        settings.validate()
