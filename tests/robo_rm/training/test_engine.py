"""The training engine: averages and schedule, exact resumption, what ends a training, several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_objective import TinyObjective, tiny_engine, weights_of

from robo_core.errors import ModelError
from robo_rm.training.callbacks import HeldOut
from robo_rm.training.checkpoint import read_note

HELPERS = Path(__file__).parents[2] / "helpers"


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def run(path: Path, engine, callbacks=()):
    engine.fit(path / "checkpoint.safetensors", "tiny", {"mark": 7}, callbacks)
    return engine


def test_weights_averages_and_learning_rate_are_those_of_the_formulas():
    objective = TinyObjective()
    optimizer = torch.optim.AdamW(objective.network.parameters(), lr=0.01)
    averages = [value.detach().clone() for value in objective.network.parameters()]
    engine = tiny_engine()
    for step in range(8):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 16)
        loss = objective.loss(objective.batch(step))["total"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.network.parameters(), 1.0)
        optimizer.step()
        decay = min(0.9, (step + 1) / (step + 10))
        for average, value in zip(averages, objective.network.parameters(), strict=True):
            average.mul_(decay).add_((1 - decay) * value.detach())
        assert engine.step(engine.objective.batch(step)) == pytest.approx(float(loss.detach()), rel=1e-5)
    for found, expected in zip(weights_of(engine), averages, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_network_with_averaged_weights_is_lent_and_taken_back():
    engine = tiny_engine(dropout=0.5)
    for step in range(3):
        engine.step(engine.objective.batch(step))
    network = engine.objective.network
    before, random = [value.clone() for value in network.state_dict().values()], torch.get_rng_state()
    with engine.averaged():
        assert not network.training
        assert not same(before, network.state_dict().values())
        torch.rand(9)
    assert network.training
    assert same(before, network.state_dict().values())
    assert torch.equal(random, torch.get_rng_state())
    averages = weights_of(engine)
    engine.finish()
    assert same(averages, network.state_dict().values())


def test_a_run_cut_at_any_step_resumes_to_the_weights_and_the_curve_of_an_uninterrupted_one(tmp_path):
    """Weights in channels-last order included, whose optimiser state must lie as they do."""
    torch.manual_seed(5)
    whole = run(tmp_path / "whole", tiny_engine(dropout=0.5))
    for _ in range(3):
        torch.manual_seed(5)
        cut = run(tmp_path / "cut", tiny_engine(dropout=0.5, minutes=1e-9))
        assert cut.ended_by == "minutes"
    assert cut.steps == 3
    resumed = run(tmp_path / "cut", tiny_engine(dropout=0.5))
    assert (resumed.steps, resumed.ended_by) == (8, "steps")
    assert same(weights_of(whole), weights_of(resumed))
    assert np.array_equal(whole.losses, resumed.losses)
    assert [row[0] for row in resumed.curve(3)] == [3, 6, 8]
    np.testing.assert_allclose(resumed.curve(3)[-1][2:], whole.losses[6:].mean(0))


def test_a_run_killed_outright_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path):
    script = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from tiny_objective import tiny_engine; from robo_rm.training.engine import Engine\n"
        "save = Engine.save\n"
        "def save_and_die(self, path, note):\n"
        "    save(self, path, note)\n"
        "    if self.steps == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Engine.save = save_and_die\n"
        "tiny_engine(seconds=0.0).fit(Path(sys.argv[2]), 'tiny', {})\n"
    )
    path = tmp_path / "checkpoint.safetensors"
    killed = subprocess.run([sys.executable, "-c", script, str(HELPERS), str(path)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert read_note(path)["steps"] == 5
    whole = run(tmp_path / "whole", tiny_engine())
    assert same(weights_of(whole), weights_of(run(tmp_path, tiny_engine())))


def test_a_finished_run_is_not_trained_again(tmp_path):
    whole = run(tmp_path, tiny_engine())
    again = tiny_engine(spoilt=0)
    assert same(weights_of(whole), weights_of(run(tmp_path, again)))
    assert (again.steps, again.ended_by, read_note(tmp_path / "checkpoint.safetensors")["mark"]) == (8, "steps", 7)


def test_a_loss_that_is_not_finite_names_step_and_setting(tmp_path):
    words = r"training diverged at step 3: the loss is nan; lower optimiser.learning_rate"
    with pytest.raises(ModelError, match=words):
        run(tmp_path, tiny_engine(spoilt=2))


class Stop:
    note = "patience"

    def __init__(self):
        self.seen = []

    def after_step(self, engine):
        self.seen.append(engine.steps)
        return "early_stopping" if engine.steps == 4 else ""

    def state(self):
        return {"seen": self.seen}

    def restore(self, state):
        self.seen = list(state["seen"])


def test_a_callback_may_end_a_training_and_its_state_is_resumed(tmp_path, capfd):
    first = Stop()
    assert run(tmp_path, tiny_engine(minutes=1e-9), [first]).steps == 1
    second = Stop()
    engine = run(tmp_path, tiny_engine(), [second])
    assert (engine.steps, engine.ended_by) == (4, "early_stopping")
    assert second.seen == [1, 2, 3, 4]
    output = capfd.readouterr()
    assert "warning: minutes=1e-09 ended the training at step 1 of 8" in output.out
    assert "patience" in output.err


def test_held_out_data_are_measured_each_tenth_of_the_steps_and_change_nothing(tmp_path):
    values = iter([*range(9), float("nan")])
    watch = HeldOut(lambda: (float(next(values)), "seen"))
    watched = run(tmp_path / "watched", tiny_engine(steps=20), [watch])
    assert watch.rows == [[2 * (n + 1), float(n)] for n in range(9)]
    plain = run(tmp_path / "plain", tiny_engine(steps=20))
    assert same(weights_of(plain), weights_of(watched))


def test_two_processes_train_as_one_with_batches_twice_as_large(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from tiny_objective import tiny_engine\n"
        "engine = tiny_engine(steps=6, minutes=None if sys.argv[3] == 'whole' else 1e-9)\n"
        "engine.fit(Path(sys.argv[2]), 'tiny', {})\n"
    )
    (tmp_path / "train.py").write_text(script)
    path = tmp_path / "checkpoint.safetensors"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    for how in ("cut", "whole"):
        ran = subprocess.run(
            [*launch, str(tmp_path / "train.py"), str(HELPERS), str(path), how],
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            check=False,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr.count("/6 steps") == 1, "the first process alone reports"
    found = load_file(path)
    one = run(tmp_path / "one", tiny_engine(steps=6, size=8))
    for n, weight in enumerate(weights_of(one)):
        torch.testing.assert_close(found[f"averaged.{n}"], weight, rtol=1e-4, atol=1e-6)
    assert {"random.0.cpu", "random.1.cpu"} <= found.keys()
    assert json.loads(json.dumps(read_note(path)))["ended_by"] == "steps"
