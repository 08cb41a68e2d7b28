"""Policies and reward models for tests of the transport, numpy only; run as a script it serves one until it is killed.

python served_policies.py CONTRACT ADDRESS [SECONDS_TO_THINK [CERTIFICATES [blind]]]
"""

from __future__ import annotations

import sys
import time

import numpy as np

from robo_hw import RobotContract
from robo_hw.transport import Credentials, Observation, PolicyInfo, PolicyServer, ProgressEstimate

STATE = "observation.state"


def camera_needs(contract: RobotContract) -> dict[str, tuple[int, ...]]:
    return {f"observation.images.{c.name}": (c.height, c.width, 3) for c in contract.cameras}


class Rising:
    """Moves every joint a little; column 0 carries the mean of the images, so a test sees which it was given."""

    def __init__(self, contract: RobotContract, horizon: int = 20, images: bool = True, think: float = 0.0) -> None:
        needs: dict[str, tuple[int, ...]] = {STATE: (len(contract.joints),)}
        needs.update(camera_needs(contract) if images else {})
        self.info = PolicyInfo("rising", "test", horizon, horizon // 2, needs, contract.hash)
        self.think = think
        self.tasks: list[str] = []
        self.seen: list[Observation] = []
        self.wrong: object = None

    def start(self, task: str) -> Rising:
        self.tasks.append(task)
        return self

    def act(self, observation: Observation) -> object:
        self.seen.append(observation)
        time.sleep(self.think)
        if isinstance(self.wrong, Exception):
            raise self.wrong
        if self.wrong is not None:
            return self.wrong
        way = np.linspace(0, 0.02, self.info.chunk_size + 1)[1:, None]
        return observation.values[STATE] + way * np.ones(len(observation.values[STATE]))


class Counting:
    """A reward model whose progress rises by a hundredth a frame."""

    rate = 20.0
    stages = ("reach", "grasp")

    def __init__(self, contract: RobotContract) -> None:
        self.needs = camera_needs(contract)

    def start(self, task: str) -> Counting.Run:
        return self.Run()

    class Run:
        def __init__(self) -> None:
            self.frames = 0

        def step(self, observation: Observation) -> ProgressEstimate:
            self.frames += 1
            return ProgressEstimate(min(self.frames / 100, 1.0), 1, "grasp", 0.02)


def main() -> None:
    contract = RobotContract.load(sys.argv[1])
    think = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    credentials = Credentials(certificates=sys.argv[4]) if len(sys.argv) > 4 else None
    policy = Rising(contract, think=think, images=sys.argv[5:] != ["blind"])
    with PolicyServer(contract, sys.argv[2], policy, Counting(contract), credentials=credentials):
        print("serving", flush=True)
        while True:
            time.sleep(1.0)


if __name__ == "__main__":
    main()
