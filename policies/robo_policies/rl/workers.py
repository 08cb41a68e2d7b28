"""Worlds in processes of their own, a few to each: physics and rendering over all cores while this process learns.

Each process is a fresh interpreter (``python -m robo_policies.rl.workers``) that is told in JSON lines what to do and
answers with a line a world. Commands, observations and pictures lie in a file that both have mapped into memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from robo_core.errors import ConfigError, ModelError, RoboError
from robo_policies.rl.crew import Carried, Floats, begin, carry_out

LONGEST_DECISION = 64
"""Commands that fit into the shared memory."""
IMAGES = "observation.images."
_SHARED = Path("/dev/shm")


class RemoteWorld:
    """One world in a process of a `WorldProcesses`; a member of a crew, and closed like an environment."""

    def __init__(self, crew: WorldProcesses, place: int) -> None:
        self._crew, self._place = crew, place
        self.observation_space, self.action_space = crew.observation_space, crew.action_space

    @property
    def unwrapped(self) -> RemoteWorld:
        """Itself."""
        return self

    def start_reset(self, seed: int, cameras: Sequence[str]) -> None:
        """Begin an episode over there."""
        self._crew.ask(self._place, {"seed": seed, "cameras": list(cameras)})

    def start(self, commands: Floats, cameras: Sequence[str]) -> None:
        """Carry out commands (k, A) over there."""
        self._crew.arrays[self._place]["commands"][: len(commands)] = commands
        self._crew.ask(self._place, {"steps": len(commands), "cameras": list(cameras)})

    def finish(self) -> Carried:
        """Wait for it.

        Raises:
            ModelError: an observation is not finite, or the process failed.
        """
        answer, arrays = self._crew.answer(self._place), self._crew.arrays[self._place]
        return Carried(
            {key: arrays[key].copy() for key in self._crew.keys},
            answer["info"],
            answer["golds"],
            answer["terminated"],
            answer["truncated"],
            {key: arrays[key].copy() for key in answer["pictures"]},
        )

    def close(self) -> None:
        """Stop the processes, which all worlds of the crew share."""
        self._crew.close()


class WorldProcesses:
    """``count`` worlds of one kind, dealt out to ``processes`` processes.

    Args:
        name: of the world, as `make_env` takes it.
        count: how many.
        processes: over how many; not more than worlds.
        max_steps: control steps of an episode; None for the world's own.
        image_size: pixels of the pictures.
        cameras: that may be asked for.

    Attributes:
        worlds: to be given to `DecisionWorlds`.
        observation_space: of each world.
        action_space: of each world.
        keys: of the observations.
        arrays: for each world, what is shared with its process, by key.

    Raises:
        ConfigError: no world or process; and what `make_env` raises.
    """

    def __init__(
        self,
        name: str,
        count: int,
        processes: int,
        max_steps: int | None = None,
        image_size: int = 128,
        cameras: Sequence[str] = ("front", "wrist"),
    ) -> None:
        from robo_policies.envs import make_env

        if count < 1 or not 1 <= processes <= count:
            raise ConfigError(f"{count} worlds in {processes} processes: give a world at least to each process")
        env = make_env(name, image_size=image_size, max_steps=max_steps)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        env.close()
        assert isinstance(self.observation_space, spaces.Dict)
        self.keys = tuple(self.observation_space.spaces)
        layout = _layout(self.observation_space, int(np.prod(env.action_space.shape or ())), cameras, image_size)
        folder = _SHARED if os.access(_SHARED, os.W_OK) else None
        self._file = tempfile.NamedTemporaryFile(prefix="robo-rm-worlds-", dir=folder)  # noqa: SIM115 - see close
        self._file.truncate(count * _size(layout))
        self.arrays = _map(self._file.name, layout, count)
        self._workers: list[subprocess.Popen[str]] = []
        self._logs: list[IO[str]] = []
        self._unheard = set(range(processes))
        self._waiting: dict[int, list[dict[str, Any]]] = {place: [] for place in range(count)}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        for index in range(processes):
            self._logs.append(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - closed in close
            worker = subprocess.Popen(
                [sys.executable, "-m", "robo_policies.rl.workers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._logs[-1],
                text=True,
                env=environment,
            )
            self._workers.append(worker)
            request = {"env": name, "max_steps": max_steps, "image_size": image_size, "layout": layout}
            places = list(range(index, count, processes))
            self._tell(index, {**request, "file": self._file.name, "count": count, "places": places})
        self.worlds = [RemoteWorld(self, place) for place in range(count)]

    def ask(self, place: int, message: Mapping[str, Any]) -> None:
        """Send a request for one world."""
        self._tell(place % len(self._workers), {"place": place, **message})

    def answer(self, place: int) -> dict[str, Any]:
        """The oldest answer of one world that was not yet taken.

        Raises:
            ModelError: its process failed; the message is its last line.
        """
        index = place % len(self._workers)
        stream = self._workers[index].stdout
        assert stream is not None
        while not self._waiting[place]:
            line = stream.readline()
            if not line:
                self._workers[index].wait()
                raise ModelError(f"a world's process failed: {_last_line(self._logs[index])}")
            if index in self._unheard:
                self._unheard.discard(index)
                if not self._unheard:
                    # All have it mapped; without a name it cannot outlive them, however this process ends.
                    self._file.close()
            found = json.loads(line)
            self._waiting[found["place"]].append(found)
        return self._waiting[place].pop(0)

    def close(self) -> None:
        """Stop the processes; safe to call again."""
        for worker, log in zip(self._workers, self._logs, strict=True):
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # unsent words to a process that is gone
                        stream.close()
            worker.terminate()
            worker.wait()
            log.close()
        self._workers, self._logs, self.arrays = [], [], []
        self._file.close()

    def _tell(self, index: int, message: Mapping[str, Any]) -> None:
        stream = self._workers[index].stdin
        assert stream is not None
        # A process that died is found out by its answer, which never comes.
        with contextlib.suppress(BrokenPipeError):
            stream.write(json.dumps(message) + "\n")
            stream.flush()


Layout = list[tuple[str, tuple[int, ...], str]]


def _layout(space: spaces.Dict, actions: int, cameras: Sequence[str], image_size: int) -> Layout:
    """(key, shape, dtype) of what one world shares."""
    observed = [(key, tuple(box.shape or ()), str(box.dtype)) for key, box in space.spaces.items()]
    held = {key for key, _, _ in observed}
    seen: Layout = [
        (IMAGES + camera, (image_size, image_size, 3), "uint8") for camera in cameras if IMAGES + camera not in held
    ]
    return [("commands", (LONGEST_DECISION, actions), "float32"), *observed, *seen]


def _bytes(shape: Sequence[int], dtype: str) -> int:
    # Rounded up, so that every array begins where numbers of 8 bytes may.
    return (int(np.prod(shape)) * np.dtype(dtype).itemsize + 7) // 8 * 8


def _size(layout: Layout) -> int:
    return sum(_bytes(shape, dtype) for _, shape, dtype in layout)


def _map(path: str, layout: Layout, count: int) -> list[dict[str, npt.NDArray[Any]]]:
    """The shared arrays of each world."""
    worlds = []
    offset = 0
    for _ in range(count):
        arrays: dict[str, npt.NDArray[Any]] = {}
        for key, shape, dtype in layout:
            arrays[key] = np.memmap(path, dtype, "r+", offset, tuple(shape))
            offset += _bytes(shape, dtype)
        worlds.append(arrays)
    return worlds


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1] if lines else "it was killed"


def _answer(place: int, carried: Carried, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Write what a world came to into the shared arrays; returns what is left to say."""
    for key, value in (*carried.observation.items(), *carried.pictures.items()):
        arrays[key][...] = value
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in carried.info.items()}
    return {
        "place": place,
        "golds": carried.golds,
        "terminated": carried.terminated,
        "truncated": carried.truncated,
        "pictures": list(carried.pictures),
        "info": {key: value for key, value in plain.items() if isinstance(value, bool | int | float | str)},
    }


def main() -> int:
    """A process: its worlds on the first line of standard input, then a request a line; an answer a line."""
    # Ctrl-C reaches the whole group of processes; the parent decides, and stops us by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request: dict[str, Any] = json.loads(sys.stdin.readline())
    # Libraries may print; the answers must stay alone on their stream.
    answers, sys.stdout = sys.stdout, sys.stderr
    from robo_policies.envs import make_env

    try:
        arrays = _map(request["file"], request["layout"], request["count"])
        settings = {"image_size": request["image_size"], "max_steps": request["max_steps"]}
        worlds = {place: make_env(request["env"], **settings) for place in request["places"]}
        for line in iter(sys.stdin.readline, ""):
            asked = json.loads(line)
            place, cameras = asked["place"], asked["cameras"]
            if "seed" in asked:
                carried = begin(worlds[place], asked["seed"], cameras)
            else:
                commands = np.array(arrays[place]["commands"][: asked["steps"]])
                carried = carry_out(worlds[place], commands, cameras)
            print(json.dumps(_answer(place, carried, arrays[place])), file=answers, flush=True)
        for world in worlds.values():
            world.close()
    except RoboError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
