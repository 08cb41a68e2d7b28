"""Training: what may train what, exact resumption, the verb from store to model folder."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from moving_square import CAMERA, ENCODER, REWARD, STATE, arrays, description, make_store, stored
from safetensors.torch import save_file

from robo_core.errors import ConfigError, LabelError, ModelError
from robo_datasets import DemoStore
from robo_rm.labels.split import split_episodes
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.reward_models.stage.losses import Targets, stage_loss
from robo_rm.reward_models.stage.model_type import StagePlan
from robo_rm.reward_models.stage.network import Heads
from robo_rm.reward_models.stage.trainer import StageObjective
from robo_rm.settings import LossSettings, OptimiserSettings
from robo_rm.training.budget import LEAST_STEPS, Budget
from robo_rm.training.data import TrainingData
from robo_rm.training.engine import Engine, Recipe
from robo_rm.training.fit import CHECKPOINT, Fit
from robo_rm.training.objective import FLOOR
from robo_rm.training.schedule import warmup_cosine

TINY = [
    "reward.history=3",
    "reward.gap_seconds=0.4",
    "reward.width=16",
    "reward.layers=1",
    "reward.heads=2",
    "reward.dropout=0",
    "encoder.image_size=24",
    "encoder.channels=[8,8,16]",
    "encoder.stem=2",
    "encoder.dropout=0",
    "optimiser.batch=8",
    "optimiser.warmup=5",
    "device=cpu",
]


def fit_of(store, folder, steps: int = 12, **changes) -> Fit:
    values = {
        "reward": REWARD,
        "encoder": ENCODER,
        "optimiser": OptimiserSettings(batch=4, warmup=2),
        "budget": Budget(steps, None),
        "holdout": 2,
        "seed": 0,
        "device": "cpu",
    }
    return Fit(FitRequest(store=store, folder=folder, **{**values, **changes}), StagePlan)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "square.zarr", episodes=8, failures=2)


def training_data(budget: float = 1e9, states: bool = True) -> TrainingData:
    episodes = [stored(arrays(30, 0)), stored(arrays(25, 1, until=0.3), success=False)]
    return TrainingData.load(episodes, [0.4, 0.6], {CAMERA: (24, 32)}, STATE if states else None, budget)


def engine_of(made=None) -> Engine:
    objective = StageObjective(made or description(), training_data(), OptimiserSettings(batch=4, warmup=2), seed=1)
    return Engine(objective, Recipe(Budget(6), objective.settings.average), "cpu")


def train(engine: Engine, steps: range) -> None:
    for step in steps:
        engine.step(engine.objective.batch(step))


def heads_and_targets(slots: int = 5):
    torch.manual_seed(0)
    heads = Heads(torch.randn(3, slots, 2, requires_grad=True), torch.rand(3, slots, 2, requires_grad=True))
    stage = torch.randint(0, 2, (3, slots))
    targets = Targets(
        supervised=torch.ones(3, slots, dtype=torch.bool),
        stage=stage,
        within=torch.rand(3, slots),
        progress=torch.rand(3, slots),
        complete=torch.ones(3, slots, dtype=torch.bool),
    )
    return heads, targets


CUMULATIVE = torch.tensor([0.0, 0.4, 1.0])


def test_padding_changes_no_loss_and_gets_no_gradient():
    heads, targets = heads_and_targets()
    reference = stage_loss(heads, targets, CUMULATIVE, LossSettings())
    more, _ = heads_and_targets(7)
    logits = torch.cat([heads.logits.detach(), more.logits.detach()[:, :2] * 50], 1).requires_grad_()
    within = torch.cat([heads.within.detach(), more.within.detach()[:, :2]], 1).requires_grad_()

    def pad(values: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.cat([values, torch.full((3, 2), fill, dtype=values.dtype)], 1)

    padded = Targets(
        pad(targets.supervised, False),
        pad(targets.stage, -1),
        pad(targets.within, 9.0),
        pad(targets.progress, float("nan")),
        pad(targets.complete, True),
    )
    losses = stage_loss(Heads(logits, within), padded, CUMULATIVE, LossSettings())
    for name, value in reference.items():
        assert float(losses[name].detach()) == pytest.approx(float(value.detach()), rel=1e-6)
    losses["total"].backward()
    assert (logits.grad[:, 5:] == 0).all()
    assert (within.grad[:, 5:] == 0).all()
    assert (logits.grad[:, :5] != 0).any()


def test_unfinished_segments_train_the_stage_alone():
    heads, targets = heads_and_targets()
    unfinished = targets._replace(complete=torch.zeros_like(targets.complete))
    stage_loss(heads, unfinished, CUMULATIVE, LossSettings())["total"].backward()
    assert heads.within.grad is None or (heads.within.grad == 0).all()
    assert (heads.logits.grad != 0).all()


def test_unfinished_segments_pull_to_their_stages_beginning_by_the_weight_that_they_are_given():
    heads, targets = heads_and_targets()
    plateau = targets._replace(
        complete=torch.zeros_like(targets.complete),
        within=torch.zeros_like(targets.within),
        progress=CUMULATIVE[targets.stage.clamp(min=0)],
    )
    measured = stage_loss(heads, plateau._replace(complete=targets.complete | True), CUMULATIVE, LossSettings())
    alike = stage_loss(heads, plateau, CUMULATIVE, LossSettings(unfinished=1.0))
    for name, value in measured.items():
        assert float(alike[name].detach()) == pytest.approx(float(value.detach()), rel=1e-6)
    mixed = targets._replace(complete=torch.arange(targets.stage.numel()).view_as(targets.stage) % 2 == 0)
    losses = [
        float(stage_loss(heads, mixed, CUMULATIVE, LossSettings(unfinished=weight))["within"].detach())
        for weight in (0.0, 0.5, 1.0)
    ]
    assert min(losses[0], losses[2]) < losses[1] < max(losses[0], losses[2])


def test_a_batch_of_nothing_known_has_no_loss():
    heads, targets = heads_and_targets()
    nothing = targets._replace(supervised=torch.zeros_like(targets.supervised))
    assert float(stage_loss(heads, nothing, CUMULATIVE, LossSettings())["total"].detach()) == 0


def test_images_and_states_of_a_batch_are_those_of_the_plan():
    off = dataclasses.replace(
        REWARD,
        augmentation=dataclasses.replace(REWARD.augmentation, **dict.fromkeys(AUGMENTATIONS, 0.0)),
        instruction_mismatch=0.0,
    )
    data = training_data()
    trainer = StageObjective(description(reward=off), data, OptimiserSettings(batch=6), seed=3)
    batch = trainer.batch(0)
    images = batch.images[CAMERA].reshape(6, -1, 24, 32, 6)
    state = batch.state.reshape(6, -1, 2)
    sources = [arrays(30, 0), arrays(25, 1, until=0.3)]
    for row, episode in enumerate(batch.windows.episode):
        frames = batch.windows.frames[row]
        shown = sources[episode][CAMERA][frames]
        assert np.array_equal(images[row, ..., :3], shown)
        difference = np.abs(shown.astype(int) - shown[:1].astype(int))
        assert np.array_equal(images[row, ..., 3:], difference), "the change since the episode's first frame"
        assert np.array_equal(state[row], sources[episode][STATE][frames])
        assert np.array_equal(batch.windows.stage[row], sources[episode]["stage"][frames])


AUGMENTATIONS = ("brightness", "contrast", "colour", "gamma", "shift", "zoom", "rotation")


def test_images_beyond_the_memory_budget_are_the_same():
    frames = np.array([3, 0, 3, 7, 24])
    kept, read = training_data(), training_data(budget=0)
    for episode in range(2):
        assert np.array_equal(kept.reader.read(episode, CAMERA, frames), read.reader.read(episode, CAMERA, frames))


def test_every_episode_has_its_turn():
    trainer = StageObjective(description(), training_data(), OptimiserSettings(batch=3), seed=0)
    seen = np.concatenate([trainer.batch(step).windows.episode for step in range(4)])
    assert np.bincount(seen).tolist() == [6, 6]


def test_a_batch_depends_on_seed_and_step_alone():
    first = StageObjective(description(), training_data(), OptimiserSettings(batch=3), seed=5)
    second = StageObjective(description(), training_data(), OptimiserSettings(batch=3), seed=5)
    second.batch(0)
    a, b = first.batch(4), second.batch(4)
    assert np.array_equal(a.images[CAMERA], b.images[CAMERA])
    assert np.array_equal(a.windows.frames, b.windows.frames)
    assert not np.array_equal(a.images[CAMERA], first.batch(5).images[CAMERA])


def test_a_resumed_training_is_the_one_that_was_not_interrupted(tmp_path):
    straight = engine_of()
    train(straight, range(6))
    first = engine_of()
    train(first, range(3))
    first.save(tmp_path / "c.safetensors", {"mark": 7})
    second = engine_of()
    assert second.load(tmp_path / "c.safetensors")["mark"] == 7
    train(second, range(3, 6))
    straight.finish()
    second.finish()
    expected, found = (engine.objective.network.state_dict() for engine in (straight, second))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"damaged .*; remove it to train again"):
        engine_of().load(path)


def test_a_checkpoint_of_before_is_refused_in_one_line(tmp_path):
    path = tmp_path / "c.safetensors"
    save_file({"network.0": torch.zeros(1)}, path, {"note": json.dumps({"steps": 3})})
    with pytest.raises(ModelError, match=r"not a checkpoint of version 2; remove it to train again$"):
        engine_of().load(path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    engine_of().save(path, {"callbacks": []})
    wider = dataclasses.replace(REWARD, width=32)
    with pytest.raises(ModelError, match="checkpoint of another model"):
        engine_of(description(reward=wider)).load(path)


def test_the_learning_rate_warms_up_and_falls():
    def schedule(fraction: float, step: int, warmup: int) -> float:
        return warmup_cosine(fraction, (step + 1) / warmup, FLOOR)

    rates = [schedule(step / 100, step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.05)
    assert np.argmax(rates) == 9
    assert rates[-1] < 0.03
    assert schedule(2.0, 100, 10) == pytest.approx(0.02)


def test_state_statistics_are_of_the_training_split():
    data = training_data()
    trainer = StageObjective(description(), data, OptimiserSettings(), seed=0)
    both = np.concatenate([arrays(30, 0)[STATE], arrays(25, 1, until=0.3)[STATE]])
    assert trainer.network.state.mean.numpy() == pytest.approx(both.mean(0), abs=1e-5)


def test_a_split_holds_out_successes_and_failures_in_proportion():
    episodes = [stored(arrays(5), success=n % 4 != 0, uuid=f"e{n}") for n in range(40)]
    train, held = split_episodes(episodes, 8, seed=3)
    assert (len(train), len(held)) == (32, 8)
    assert sum(not episode.success for episode in held) == 2
    assert not {e.uuid for e in train} & {e.uuid for e in held}
    turned = split_episodes(episodes[::-1], 8, seed=3)[1]
    assert {e.uuid for e in turned} == {e.uuid for e in held}


def test_priors_come_from_the_training_split_only(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=5, frames=8)
    before = fit_of(store, tmp_path / "rm")
    for episode in before.held_out:
        store.set_stages(episode.uuid, np.zeros(episode.length, dtype=np.int16))
    after = fit_of(DemoStore.open(store.path), tmp_path / "rm")
    assert [e.uuid for e in after.held_out] == [e.uuid for e in before.held_out]
    assert after.plan.description.priors == before.plan.description.priors
    assert after.provenance["store_hash"] != before.provenance["store_hash"]
    store.set_stages(before.train[0].uuid, np.zeros(before.train[0].length, dtype=np.int16))
    trained_on = fit_of(DemoStore.open(store.path), tmp_path / "rm")
    assert trained_on.plan.description.priors != before.plan.description.priors


def test_same_seed_same_model(store, tmp_path):
    figures = []
    for name in ("a", "b"):
        fit = fit_of(store, tmp_path / name, 6)
        fitted = fit.run()
        figures.append({k: v for k, v in fitted.metrics.items() if "second" not in k})
    assert {k: str(v) for k, v in figures[0].items()} == {k: str(v) for k, v in figures[1].items()}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"holdout": 8}, "holdout=8 leaves nothing to train on: the store has 8 labelled episodes"),
        ({"holdout": -1}, "holdout=-1"),
        ({"cameras": ["wrist"]}, "cameras=wrist: the store has observation.images.front"),
        ({"reward": dataclasses.replace(REWARD, width=15)}, "reward.width=15 is not a multiple"),
        ({"reward": dataclasses.replace(REWARD, composition="mode")}, "expectation or argmax"),
        ({"reward": dataclasses.replace(REWARD, state_dropout=1.5)}, "reward.state_dropout=1.5: give a share"),
        ({"encoder": dataclasses.replace(ENCODER, channels=[])}, "encoder.channels"),
        ({"encoder": dataclasses.replace(ENCODER, stem=3)}, "encoder.stem=3: give an even number"),
    ],
)
def test_settings_that_do_not_fit_are_named(store, tmp_path, changes, says):
    with pytest.raises(ConfigError, match=says):
        fit_of(store, tmp_path / "rm", **changes)


def test_an_unlabelled_store_is_refused(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=2, labelled=False, frames=4)
    with pytest.raises(LabelError, match="none of the 2 episodes"):
        fit_of(store, tmp_path / "rm")


@pytest.mark.parametrize(("steps", "minutes"), [(None, None), (None, 5.0), (0, None), (9, -1.0), (9, float("nan"))])
def test_a_budget_that_is_none_is_refused(steps, minutes):
    with pytest.raises(ConfigError, match="minutes"):
        Budget(steps, minutes)


def test_the_verb_trains_a_model_that_knows_the_task(store, tmp_path, run_command):
    out = tmp_path / "rm"
    words = ["train-reward", f"store={store.path}", f"out={out}", "holdout=2", "steps=150", *TINY]
    code, text, errors = run_command(*words)
    assert code == 0, errors
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 150
    assert metrics["stage_accuracy"] > 0.8
    assert metrics["voc"] > 0.9
    assert metrics["mse"] < 0.02
    assert metrics["supervised_frames_per_second"] > 0
    assert (out / "curve.png").exists()
    assert not (out / CHECKPOINT).exists()
    assert "stage_accuracy" in text
    model = load_reward_model(out)
    assert len(model.provenance["train_uuids"]) == 6
    assert len(model.provenance["holdout_uuids"]) == 2
    assert not set(model.provenance["train_uuids"]) & set(model.provenance["holdout_uuids"])
    assert "## Figures on held-out episodes" in (out / "card.md").read_text()

    code, text, _ = run_command(*words)
    assert code == 0
    assert "already holds this model" in text
    code, _, errors = run_command(*words, "seed=4")
    assert code == 2
    assert "overwrite=true" in errors


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("store=nowhere.zarr", "there is no demo store"),
        ("holdout=99", "leaves nothing to train on"),
        ("reward=nonsense", "reward=nonsense is not one of: "),
        ("minutes=-1", "above 0"),
        ("reward.loss.unfinished=1.5", "from 0 to 1"),
        ("reward.histroy=3", "did you mean"),
    ],
)
def test_a_users_mistake_gives_one_line_and_writes_nothing(store, tmp_path, run_command, word, says):
    words = {"store": f"store={store.path}", "out": f"out={tmp_path / 'rm'}", "holdout": "holdout=2"}
    words[word.split("=")[0]] = word
    code, _, errors = run_command("train-reward", *words.values())
    assert code == 2
    assert says in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "rm").exists()


def test_a_killed_training_goes_on_where_it_stood(store, tmp_path, run_command):
    """Killed at a checkpoint and started again, it gives the model of an undisturbed run."""
    script = (
        "import os, signal, sys; import robo_rm.training.fit as fit; from robo_rm.training.engine import Engine\n"
        "fit.SECONDS_BETWEEN_CHECKPOINTS = 0.0\n"
        "save = Engine.save\n"
        "def save_and_die(self, path, note):\n"
        "    save(self, path, note)\n"
        "    if self.steps == 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Engine.save = save_and_die\n"
        "from robo_core.cli.main import main; sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["train-reward", f"store={store.path}", "holdout=2", "steps=40", "threads=1", *TINY]

    command = [sys.executable, "-c", script, *words, f"out={tmp_path / 'killed'}"]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "killed" / CHECKPOINT).exists()
    with pytest.raises(ModelError, match="training interrupted"):
        load_reward_model(tmp_path / "killed")
    for out in ("killed", "straight"):
        assert run_command(*words, f"out={tmp_path / out}")[0] == 0
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (
        tmp_path / "straight" / "model.safetensors"
    ).read_bytes()


def test_a_run_that_time_cut_off_says_so_everywhere_and_goes_on_to_the_model_of_an_uncut_one(
    store, tmp_path, run_command
):
    words = ["train-reward", f"store={store.path}", "holdout=2", "steps=40", "threads=1", *TINY]
    out = tmp_path / "cut"
    code, text, errors = run_command(*words, f"out={out}", "minutes=0.0001")
    assert code == 0, errors
    assert "warning: minutes=0.0001 ended the training at step 1 of 40" in text
    assert json.loads((out / "metrics.json").read_text())["ended_by"] == "minutes"
    assert "cut off by `minutes` at step 1 of 40" in (out / "card.md").read_text()
    assert load_reward_model(out).provenance["ended_by"] == "minutes"
    code, text, errors = run_command(*words, f"out={out}")
    assert code == 0, errors
    assert "warning: minutes" not in text
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["ended_by"], metrics["steps"], metrics["planned_steps"]) == ("steps", 40, 40)
    assert "cut off" not in (out / "card.md").read_text()
    assert run_command(*words, f"out={tmp_path / 'whole'}", "minutes=60")[0] == 0
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() == whole


def test_the_learning_rate_follows_steps_whatever_time_they_take(store, tmp_path, monkeypatch):
    seen = {}
    step = Engine.step
    for name, pause in (("idle", 0.0), ("busy", 0.03)):
        rates = seen.setdefault(name, [])

        def slow(self, batch, pause=pause, rates=rates):
            time.sleep(pause)
            rates.append(self._optimizer.param_groups[0]["lr"])
            return step(self, batch)

        monkeypatch.setattr(Engine, "step", slow)
        fit_of(store, tmp_path / name, 12, budget=Budget(12, 1.0)).run()
    peak = OptimiserSettings().learning_rate
    expected = [peak * warmup_cosine(n / 12, (n + 1) / 2, FLOOR) for n in range(12)]
    assert seen["idle"] == seen["busy"] == pytest.approx(expected)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in seen]
    assert files[0] == files[1]


def test_a_model_is_there_before_it_is_evaluated(store, tmp_path, monkeypatch):
    """A crash, or Ctrl-C, in the evaluation loses nothing: the same command only evaluates again."""
    from robo_rm.training import fit as module

    figures, steps = module.held_out_figures, []

    def interrupted(model, episodes):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "WATCHED_EPISODES", 0)
    monkeypatch.setattr(module.Fit, "_watch", lambda self, objective: (0.0, ""))
    monkeypatch.setattr(module, "held_out_figures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_of(store, tmp_path / "rm", 12).run()
    before = (tmp_path / "rm" / "model.safetensors").read_bytes()
    assert load_reward_model(tmp_path / "rm").provenance["steps"] == 12
    monkeypatch.setattr(module, "held_out_figures", figures)
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda *arguments: (steps.append(1), step(*arguments))[1])
    fitted = fit_of(store, tmp_path / "rm", 12).run()
    assert not steps
    assert fitted.metrics["stage_accuracy"] >= 0
    assert (tmp_path / "rm" / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "rm" / CHECKPOINT).exists()


def test_passes_make_the_steps_of_a_larger_store_and_a_floor_those_of_a_small_one():
    assert Budget(None, None, 7.0).over(14_160, 144).steps == 689
    assert Budget(None, 1.0, 7.0).over(100, 144) == Budget(LEAST_STEPS, 1.0, 7.0)
    assert Budget(50, None, 7.0).over(14_160, 144).steps == 50
    with pytest.raises(ConfigError, match="passes"):
        Budget(None, None, None)
    with pytest.raises(ConfigError, match="above 0"):
        Budget(None, None, 0.0)
