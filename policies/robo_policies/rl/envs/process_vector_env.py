"""N environments in P processes behind Gymnasium's vector interface (this module imports no torch).

Gymnasium's own `AsyncVectorEnv` gives each environment a process, which costs the memory of a simulator and a renderer,
and two cores only switch between sixteen of them. Here a process steps several, in a `SyncVectorEnv`. What a process
answers goes through a pipe as whole arrays: images come once in a macro-action, so copying them costs little.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any, TypeAlias, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper, batch_space, create_empty_array

from robo_core.arrays import Array

Observations: TypeAlias = dict[str, Array]
Infos: TypeAlias = dict[str, Any]
Stepped: TypeAlias = tuple[Observations, Array, Array, Array, Infos]


class ProcessVectorEnv(VectorEnv[Observations, Array, Array]):
    """Gymnasium's vector of N environments, of which each of P processes steps its part; nothing is reset by itself.

    What an environment does depends on its seed and actions alone, so results are those of a `SyncVectorEnv`.

    Args:
        make_env: makes one environment; it is pickled by cloudpickle.
        count: N.
        processes: P, at most N.

    Attributes:
        processes: that step the environments.

    Raises:
        Exception: what making an environment raised.
    """

    def __init__(self, make_env: Callable[[], gymnasium.Env[Any, Any]], count: int, processes: int) -> None:
        bounds = np.linspace(0, count, processes + 1).round().astype(int).tolist()
        self._parts = [slice(first, last) for first, last in pairwise(bounds)]
        self.num_envs, self._stepping = count, False
        self._pipes: list[Connection] = []
        self.processes: list[multiprocessing.process.BaseProcess] = []
        # A forked process would share this one's GL context and threads.
        context = multiprocessing.get_context("spawn")
        with _one_thread_each():
            for part in self._parts:
                ours, theirs = context.Pipe()
                job = (CloudpickleWrapper(make_env), part.stop - part.start, theirs)
                process = context.Process(target=_serve, args=job, daemon=True)
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self.processes.append(process)
        try:
            (self.single_observation_space, self.single_action_space, metadata), *_ = self._answers(self._parts)
        except BaseException:
            self.close()
            raise
        self.metadata = {**metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)
        self._observed = cast(Observations, create_empty_array(self.single_observation_space, count, np.zeros))

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, Infos]:
        """Start new episodes; ``options`` as `SyncVectorEnv.reset` takes them, ``reset_mask`` among them.

        Args:
            seed: of each environment.
            options: for all environments; ``reset_mask`` (N,) chooses those that start.
        """
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * self.num_envs
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool)))
        asked = [part for part in self._parts if mask[part].any()]
        for part in asked:
            here = {"reset_mask": mask[part]} if "reset_mask" in (options or {}) else {}
            self._pipe(part).send(("reset", (), {"seed": seeds[part], "options": {**(options or {}), **here}}))
        answers = dict(zip([part.start for part in asked], self._answers(asked), strict=True))
        infos = []
        for part in self._parts:
            observed, info = answers.get(part.start, ({}, {}))
            self._note(part, observed)
            infos.append(info)
        return self._copied(), self._merged(infos)

    def step_async(self, actions: Array) -> None:
        """Start a step of every environment; the processes work from now on."""
        self._stepping = True
        for part in self._parts:
            self._pipe(part).send(("step", (actions[part],), {}))

    def step_wait(self) -> Stepped:
        """What the step started with `step_async` led to."""
        self._stepping = False
        answers = self._answers(self._parts)
        for part, answer in zip(self._parts, answers, strict=True):
            self._note(part, answer[0])
        rewards, terminated, truncated = (np.concatenate([answer[place] for answer in answers]) for place in (1, 2, 3))
        return self._copied(), rewards, terminated, truncated, self._merged([answer[4] for answer in answers])

    def step(self, actions: Array) -> Stepped:
        """Step every environment."""
        self.step_async(actions)
        return self.step_wait()

    def call(self, name: str, *args: object, **kwargs: object) -> tuple[object, ...]:
        """What each environment's method returns, or its attribute of this name; not while a step is pending."""
        assert not self._stepping
        for part in self._parts:
            self._pipe(part).send(("call", (name, *args), kwargs))
        return tuple(value for answer in self._answers(self._parts) for value in answer)

    def get_attr(self, name: str) -> tuple[object, ...]:
        """An attribute of each environment."""
        return self.call(name)

    def close_extras(self, **_options: object) -> None:
        """Stop the processes, whatever they are doing."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()

    def _pipe(self, part: slice) -> Connection:
        return self._pipes[self._parts.index(part)]

    def _answers(self, parts: Sequence[slice]) -> list[Any]:
        """What the processes of these parts answer, or the first of their errors once all have answered."""
        answers = [self._pipe(part).recv() for part in parts]
        for error, _ in answers:
            if error is not None:
                raise error
        return [answer for _, answer in answers]

    def _note(self, part: slice, observed: Observations) -> None:
        for key, value in observed.items():
            self._observed[key][part] = value

    def _copied(self) -> Observations:
        return {key: value.copy() for key, value in self._observed.items()}

    def _merged(self, infos: Sequence[Infos]) -> Infos:
        return _concatenated(infos, [part.stop - part.start for part in self._parts])


def _concatenated(infos: Sequence[Infos], sizes: Sequence[int]) -> Infos:
    """Infos of consecutive vectors as that of one; what one of them lacks is 0, or None, as Gymnasium has it."""
    merged: Infos = {}
    for key in dict.fromkeys(key for info in infos for key in info):
        found = [info.get(key) for info in infos]
        example = next(value for value in found if value is not None)
        if isinstance(example, dict):
            merged[key] = _concatenated([value or {} for value in found], sizes)
        else:
            merged[key] = np.concatenate(
                [_nothing(example, size) if value is None else value for value, size in zip(found, sizes, strict=True)]
            )
    return merged


def _nothing(example: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    return np.full((size, *example.shape[1:]), None if example.dtype == object else 0, example.dtype)


def _serve(make_env: Callable[[], gymnasium.Env[Any, Any]], count: int, pipe: Connection) -> None:
    """Step some environments in this process as it is told, until the other end of the pipe is closed."""
    # Ctrl-C reaches the whole group of processes; the parent decides, and stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        envs = SyncVectorEnv([make_env] * count, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        pipe.send((None, (envs.single_observation_space, envs.single_action_space, envs.metadata)))
        while True:
            name, places, names = pipe.recv()
            pipe.send((None, getattr(envs, name)(*places, **names)))
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the other process raises it
        traceback.print_exception(error, file=sys.stderr)
        pipe.send((error, None))


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started within compute on one thread."""
    before = dict(os.environ)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
