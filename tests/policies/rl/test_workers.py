"""Worlds in other processes do what worlds in this one do, bit for bit, and tell when they cannot."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from robo_core.errors import ConfigError, ModelError
from robo_policies import make_env
from robo_policies.rl.decisions import DecisionWorlds, action_map
from robo_policies.rl.workers import WorldProcesses
from robo_rm.shaping.potential import TrueProgress

REPEAT = 4
STEPS = 10


class Seen(TrueProgress):
    """A potential that looks at pictures: their mean brightness."""

    cameras = ("observation.images.front",)

    def score(self, observations, which):  # type: ignore[no-untyped-def]
        return observations["observation.images.front"].reshape(len(which), -1).mean(axis=1) / 255.0


@pytest.fixture(scope="module")
def crew() -> Iterator[WorldProcesses]:
    processes = WorldProcesses("tidy_drawer/open", 3, 2, STEPS, image_size=32)
    yield processes
    processes.close()


def decisions(worlds: list[object], seed: int = 5) -> DecisionWorlds:
    mapping = action_map(make_env("tidy_drawer/open").action_space, REPEAT, [0.2] * 6 + [np.inf])
    return DecisionWorlds(worlds, mapping, Seen(), 0.99, seed)  # type: ignore[arg-type]


def test_they_do_what_worlds_here_do(crew: WorldProcesses) -> None:
    here = decisions([make_env("tidy_drawer/open", image_size=32, max_steps=STEPS) for _ in range(3)])
    there = decisions(list(crew.worlds))
    for worlds in (here, there):
        worlds.reset()
    rng = np.random.default_rng(0)
    for _ in range(7):
        np.testing.assert_array_equal(here.observations(), there.observations())
        action = rng.uniform(-1, 1, (3, 7)).astype(np.float32)
        there.start(action)
        one, other = here.step(action), there.finish()
        for name, values in one.rows.items():
            np.testing.assert_array_equal(values, other.rows[name], err_msg=name)
        assert [info["progress"] for info in one.infos] == [info["progress"] for info in other.infos]
    # Nothing is left behind in the shared folder, even by a process that is killed.
    assert not os.path.exists(crew._file.name)
    again = decisions(list(crew.worlds))
    again.restore(json.loads(json.dumps(here.snapshot())))
    np.testing.assert_allclose(again.observations(), here.observations(), atol=1e-6)


def test_a_process_that_dies_is_told() -> None:
    processes = WorldProcesses("tidy_drawer/open", 1, 1, STEPS, image_size=32)
    try:
        worlds = decisions(list(processes.worlds))
        worlds.reset()
        os.kill(processes._workers[0].pid, signal.SIGKILL)
        with pytest.raises(ModelError, match="a world's process failed"):
            worlds.step(np.zeros((1, 7), np.float32))
    finally:
        processes.close()


def test_more_processes_than_worlds_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 worlds in 2 processes"):
        WorldProcesses("tidy_drawer/open", 1, 2)
