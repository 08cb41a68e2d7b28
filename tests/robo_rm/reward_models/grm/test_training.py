"""Training a hop model through the generic fit: labels, references, resumption, adaptation from one episode, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from moving_square import CAMERA, HEIGHT, STATE, WIDTH, arrays, make_store

from robo_core.errors import ConfigError, LabelError, ModelError
from robo_datasets import DemoStore
from robo_rm.reward_models.grm import model_type as kind
from robo_rm.reward_models.grm.labels import Truth, hop
from robo_rm.reward_models.grm.losses import hop_loss
from robo_rm.reward_models.grm.model import HopRewardModel
from robo_rm.reward_models.grm.model_type import KIND, training_episodes
from robo_rm.reward_models.grm.near_goal import NEAR, start_goal_distance
from robo_rm.reward_models.grm.network import Compared, HopNetwork
from robo_rm.reward_models.grm.settings import HopLoss, HopPlan, HopSettings, check_hop_settings
from robo_rm.reward_models.grm.trainer import hop_targets
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.settings import ConvSettings, OptimiserSettings
from robo_rm.training.budget import Budget
from robo_rm.training.engine import Engine, Recipe
from robo_rm.training.objective import WINDOWS

REWARD = HopSettings(hops=16, gap_seconds=0.4, width=16, hidden=32, bins=17, dropout=0.0, references=2)
ENCODER = ConvSettings(image_size=24, channels=[8, 8, 16], stem=2, dropout=0.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("hop") / "s.zarr", episodes=7, failures=2)


def request(store, folder: Path, steps: int = 6, **changes) -> FitRequest:
    values = {
        "store": store,
        "reward": REWARD,
        "folder": folder,
        "encoder": ENCODER,
        "optimiser": OptimiserSettings(learning_rate=3e-3, warmup=5),
        "budget": Budget(steps, None),
        "holdout": 2,
        "device": "cpu",
    }
    return FitRequest(**{**values, **changes})


def bounds_of(model: HopRewardModel, data) -> np.ndarray:
    return np.asarray(model.predict(data).progress)


def test_it_learns_the_square_and_takes_references_from_training_only(store, tmp_path):
    anywhere = replace(REWARD, plan=HopPlan(elsewhere=0.1))  # a clip that runs backwards begins at the goal
    result = KIND.fit(request(store, tmp_path / "m", steps=90, reward=anywhere))
    model = load_reward_model(tmp_path / "m", "cpu")
    assert result.metrics["voc"] > 0.9
    chosen = {uuid for uuids in model.provenance["references"].values() for uuid in uuids}
    assert chosen <= set(model.provenance["train_uuids"])
    assert all(store.episode(uuid).success for uuid in chosen)
    uuid = next(iter(model.provenance["references"].values()))[0]
    kept = model.network.references.images(CAMERA).numpy()
    last = store.episode(uuid).length - 1
    start, goal = store.episode(uuid).frames(CAMERA, [0, last], size=(HEIGHT, WIDTH))
    np.testing.assert_array_equal(kept[0], np.concatenate([start, np.zeros_like(start)], axis=-1))
    np.testing.assert_array_equal(kept[2], np.concatenate([goal, cv2.absdiff(goal, start)], axis=-1))
    backwards = bounds_of(model, {key: value[::-1].copy() for key, value in arrays(30, 3).items()})
    assert np.corrcoef(np.arange(30), backwards)[0, 1] < -0.8
    assert result.losses == ("total", "distribution", "value", "stage")


def test_a_run_cut_short_ends_as_the_whole_one(store, tmp_path, monkeypatch):
    from robo_rm.training import fit

    whole = KIND.fit(request(store, tmp_path / "whole", steps=8)).model
    monkeypatch.setattr(fit, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    class Killed(BaseException):
        pass

    step = Engine.step

    def dying(self, batch):
        if self.steps == 5:
            raise Killed
        return step(self, batch)

    monkeypatch.setattr(Engine, "step", dying)
    with pytest.raises(Killed):
        KIND.fit(request(store, tmp_path / "cut", steps=8))
    monkeypatch.setattr(Engine, "step", step)
    resumed = KIND.fit(request(store, tmp_path / "cut", steps=8)).model
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def test_a_batch_carries_the_labels_of_its_frames(store, tmp_path):
    """Every image is that of its frame: the square stands where progress says, whatever was drawn."""
    plain = replace(
        REWARD,
        augmentation=replace(
            REWARD.augmentation, brightness=0, contrast=0, colour=0, gamma=0, shift=0, zoom=0, rotation=0
        ),
    )
    episodes, _ = training_episodes(store, "stages")
    trainer = kind.HopPlan(request(store, tmp_path / "m", reward=plain), episodes, False, None).objective("cpu")
    batch = trainer.batch(3)
    count = len(batch.reference)
    # The state's first value is the share of the way, and the picture shows it.
    for rows, low, high in ((slice(0, count), *ends) for ends in [(batch.low[0], batch.high[0])]):
        shares = batch.state[rows, 0]
        reached = np.interp(shares, np.linspace(0, 1, 200), np.linspace(0, 1, 200))
        known = low == high
        assert np.abs(reached[known] - low[known]).max() < 0.25
        for image, share in zip(batch.images[CAMERA][rows], shares, strict=True):
            columns = np.flatnonzero(np.abs(image[..., :3].astype(int) - 90).sum(axis=(0, 2)) > 400)
            assert columns.min() == pytest.approx(share * (WIDTH - 6), abs=2.5)
    # The second stage begins between 0.45 and 0.55 of the way.
    for stage, shares in zip(batch.stage, batch.state[: 2 * count, 0].reshape(2, count), strict=True):
        assert np.array_equal(stage[shares > 0.55], np.ones((shares > 0.55).sum()))
        assert np.array_equal(stage[shares < 0.45], np.zeros((shares < 0.45).sum()))
    starts, goals = batch.state[2 * count :, 0].reshape(2, -1)
    assert np.all(starts == 0)
    assert np.all(goals > 0.9)
    assert batch.zero.sum() == (batch.low[0] == batch.low[1])[batch.zero].sum()
    # Behind the colours stands the difference from the first frame of the same episode.
    hops = trainer.sampler.draw(np.random.default_rng((0, WINDOWS, 3)), count)
    for row, (episode, here) in enumerate(zip(hops.episode, hops.here, strict=True)):
        first, now = trainer.data.reader.read(int(episode), CAMERA, np.array([0, here]))
        np.testing.assert_array_equal(batch.images[CAMERA][row], np.concatenate([now, cv2.absdiff(now, first)], -1))


def test_one_episode_is_enough_to_adapt_a_model(store, tmp_path, capfd):
    KIND.fit(request(store, tmp_path / "base", steps=40))
    single = make_store(tmp_path / "one.zarr", episodes=1)
    adapted = KIND.fit(request(single, tmp_path / "adapted", steps=20, init=tmp_path / "base", holdout=8)).model
    said = capfd.readouterr()
    assert "nothing is held out" in said.out + said.err
    assert f"adapting {tmp_path / 'base'}" in said.out + said.err
    assert adapted.provenance["train_uuids"] == list(single.uuids)
    assert adapted.provenance["init"]["folder"] == str(tmp_path / "base")
    assert adapted.description.references == {"move the square": 1}
    # Same stages: their shares stay those of the many episodes.
    base = load_reward_model(tmp_path / "base", "cpu")
    assert adapted.description.priors == base.description.priors
    before, after = (model.network.state_dict()["images.0.grid.0.weight"] for model in (base, adapted))
    assert 0 < (after - before).abs().max() < 0.1


def test_weights_that_were_taken_over_learn_at_the_fraction_that_the_settings_say(store, tmp_path):
    """And not at its square, as when both the schedule and the optimiser applied it."""
    KIND.fit(request(store, tmp_path / "base", steps=2))
    slow = replace(REWARD, adaptation=replace(REWARD.adaptation, encoder_rate=0.3, head_rate=0.5))
    asked = request(store, tmp_path / "a", steps=2, init=tmp_path / "base", reward=slow)
    init = load_reward_model(tmp_path / "base", "cpu")
    objective = kind.HopPlan(asked, training_episodes(store, "stages")[0], False, init).objective("cpu")
    engine = Engine(objective, Recipe(Budget(4), 0.9), "cpu")
    names = {id(parameter): name for name, parameter in objective.network.named_parameters()}
    factor = objective.rate(0, 4)
    for group in engine._optimizer.param_groups:
        name = names[id(group["params"][0])]
        fraction = 0.3 if name.startswith(("images.", "state.")) else 0.5
        assert group["lr"] == pytest.approx(objective.settings.learning_rate * fraction * factor)


def test_an_encoder_rate_of_nothing_freezes_the_encoders(store, tmp_path):
    KIND.fit(request(store, tmp_path / "base", steps=10))
    still = replace(REWARD, adaptation=replace(REWARD.adaptation, encoder_rate=0.0))
    single = make_store(tmp_path / "one.zarr", episodes=1)
    adapted = KIND.fit(request(single, tmp_path / "a", steps=4, init=tmp_path / "base", reward=still)).model
    base = load_reward_model(tmp_path / "base", "cpu").network.state_dict()
    weights = [name for name in base if name.startswith(("images.", "state.")) and name.endswith("weight")]
    assert all(torch.allclose(base[name], adapted.network.state_dict()[name], atol=1e-6) for name in weights)
    assert not torch.equal(base["compare.weight"], adapted.network.state_dict()["compare.weight"])


def test_adapting_works_without_labels_and_for_other_cameras_and_joints(store, tmp_path, capfd):
    KIND.fit(request(store, tmp_path / "base", steps=10))
    features = {
        "observation.images.side": {"shape": (32, 32, 3), "dtype": "uint8"},
        STATE: {"shape": (3,), "dtype": "float32"},
    }
    other = DemoStore.create(tmp_path / "other.zarr", features=features, fps=10)
    with other.writer(task="wave") as writer:
        for t in range(20):
            image = np.full((32, 32, 3), t * 10, dtype=np.uint8)
            writer.add({"observation.images.side": image, STATE: np.full(3, t, np.float32)}, timestamp=t / 10)
    adapted = KIND.fit(request(other, tmp_path / "a", steps=30, init=tmp_path / "base")).model
    said = "".join(capfd.readouterr())
    assert "no stage labels are used: progress is even over each episode" in said
    assert "trained again: image encoders, state encoder" in said
    assert adapted.stages == ["the task"]
    assert adapted.provenance["progress"] == "time"
    prediction = adapted.predict(other[0])
    np.testing.assert_array_equal(prediction.stage_probabilities, 1)
    assert np.corrcoef(np.arange(20), prediction.progress)[0, 1] > 0.5


def test_what_it_cannot_learn_from_is_said_before_anything_is_written(store, tmp_path):
    lost = make_store(tmp_path / "lost.zarr", episodes=3, failures=3)
    with pytest.raises(LabelError, match=r"no training episode of .* reaches the goal of the task 'move the square'"):
        KIND.fit(request(lost, tmp_path / "m", holdout=0))
    with pytest.raises(LabelError, match=r"all 3 episodes .* failed"):
        KIND.fit(request(lost, tmp_path / "m", reward=replace(REWARD, progress="time"), holdout=0))
    unlabelled = make_store(tmp_path / "bare.zarr", episodes=3, failures=1, labelled=False)
    with pytest.raises(LabelError, match="stage labels"):
        KIND.fit(request(unlabelled, tmp_path / "m", reward=replace(REWARD, progress="stages")))
    assert len(training_episodes(unlabelled, "auto")[0]) == 2
    with pytest.raises(ModelError, match="no model folder"):
        KIND.fit(request(store, tmp_path / "m", init=tmp_path / "nowhere"))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hops": 0}, "reward.hops=0"),
        ({"bins": 20}, "reward.bins=20: give an odd number"),
        ({"fusion": "sum"}, "reward.fusion=sum: choose one of incremental"),
        ({"progress": "magic"}, "reward.progress=magic: choose one of auto"),
        ({"alpha": -1.0}, "reward.alpha=-1.0"),
        ({"plan": HopPlan(zero=0.9, negatives=0.9)}, "exceed 1 together"),
        ({"plan": HopPlan(exchange=1.5)}, "reward.plan.exchange=1.5"),
        ({"plan": HopPlan(elsewhere=-0.1)}, "reward.plan.elsewhere=-0.1"),
    ],
)
def test_senseless_settings_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_hop_settings(replace(REWARD, **changes))


def test_a_task_that_ends_where_it_began_is_found(tmp_path, capfd):
    features = {CAMERA: {"shape": (HEIGHT, WIDTH, 3), "dtype": "uint8"}, STATE: {"shape": (2,), "dtype": "float32"}}
    loop = DemoStore.create(tmp_path / "loop.zarr", features=features, fps=10, stages=["out", "back"])
    for number in range(2):
        data = arrays(20, number)
        with loop.writer(task="and back", success=True) as writer:
            for n, t in enumerate([*range(20), *range(19, -1, -1)]):
                there = {CAMERA: data[CAMERA][t], STATE: np.array([t, 0], np.float32)}
                writer.add(there, timestamp=n / 10, stage=int(n >= 20))
    assert start_goal_distance(list(loop), [CAMERA], STATE) < 0.1
    straight = make_store(tmp_path / "straight.zarr", episodes=2)
    assert start_goal_distance(list(straight), [CAMERA], STATE) > 2 * NEAR
    refusing = replace(REWARD, start_near_goal="refuse")
    with pytest.raises(ConfigError, match=r"end about where they began.*reward=stage"):
        KIND.fit(request(loop, tmp_path / "m", reward=refusing, holdout=0))
    assert not (tmp_path / "m").exists()
    KIND.fit(request(loop, tmp_path / "m", steps=1, holdout=0))
    assert "warning: the episodes end about where they began" in "".join(capfd.readouterr()).replace("\n", " ")


def test_the_loss_of_a_known_hop_is_least_at_its_value():
    network = HopNetwork({}, 2, 1, REWARD, ENCODER)
    target = torch.tensor([0.31])
    exact = torch.full((1, 17), -30.0)
    step = 2 / 16
    left = int((0.31 + 1) / step)
    share = (0.31 + 1) / step - left
    exact[0, left], exact[0, left + 1] = np.log(1 - share), np.log(share)
    best = loss_of(network, exact, target, target)
    assert best["value"] < 1e-6
    for shift in (-2, 1, 3):
        assert loss_of(network, exact.roll(shift, 1), target, target)["total"] > best["total"] + 0.1


def test_a_hop_in_an_interval_costs_nothing_inside_it_and_something_outside():
    network = HopNetwork({}, 2, 1, REWARD, ENCODER)
    low, high = torch.tensor([0.1]), torch.tensor([0.7])
    costs = []
    for place in (network.points.sub(0.4).abs().argmin(), network.points.sub(-0.5).abs().argmin()):
        logits = torch.full((1, 17), -20.0)
        logits[0, place] = 0
        costs.append(float(loss_of(network, logits, low, high)["total"]))
    assert costs[0] < 1e-4
    assert costs[1] > 1


def test_the_stage_is_learned_where_there_is_a_label_and_a_head():
    network = HopNetwork({}, 2, 1, REWARD, ENCODER, stages=2)
    hops, target = torch.zeros(3, 17), torch.zeros(3)
    said = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])

    def cost(*stage):
        return float(hop_loss(network, Compared(hops, said), target, target, torch.tensor(stage), HopLoss())["stage"])

    assert cost(0, 1, -1) == cost(0, -1, -1) == pytest.approx(float(np.log1p(np.exp(-4))), rel=1e-4)
    assert cost(0, 1, 1) > 1
    assert cost(-1, -1, -1) == 0


def loss_of(network, logits, low, high):
    unlabelled = torch.full((len(logits),), -1)
    return hop_loss(network, Compared(logits, None), low, high, unlabelled, HopLoss())


def test_targets_are_the_hops_of_the_truth():
    rng = np.random.default_rng(0)
    progress = rng.random((2, 9))
    low, high = hop_targets(progress, progress, np.zeros(9, dtype=bool))
    np.testing.assert_allclose(low, high)
    here, there = progress
    np.testing.assert_allclose(
        low.reshape(6, 9),
        [hop(here, there), hop(there, here), hop(0, here), hop(0, there), hop(1, here), hop(1, there)],
    )
    plateau = Truth(np.float32([0.4]), np.float32([0.7]), False)
    ends = np.stack([plateau.low, plateau.low]), np.stack([plateau.high, plateau.high])
    low, high = hop_targets(*ends, np.array([True]))
    assert low[0] == high[0] == 0  # the same frame twice is a hop of nothing, whatever its progress
    assert low[2] < high[2]
