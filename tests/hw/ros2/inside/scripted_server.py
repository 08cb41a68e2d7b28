"""A policy server that misbehaves on demand: PolicyServer's transport with a policy that sends whatever it is told to.

    python scripted_server.py CONTRACT ADDRESS [CERTIFICATES]      then one mode a line on standard input

It swings every joint around the middle of the start pose. The real server checks a policy's actions before it sends
them; this one does not, so that the bridge has to.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np

from robo_hw import RobotContract
from robo_hw.transport import Credentials, PolicyInfo, PolicyServer
from robo_hw.transport.served import STATE, Observation, ProgressEstimate
from robo_hw.transport.workers import Worker

HORIZON = 20
SWING = 0.25
MIDDLE = np.array([0.0, 0.0, 0.0, 0.0, 1.5, 0.0, 0.5])


class Swinging:
    """Actions of a slow swing."""

    def __init__(self, contract: RobotContract) -> None:
        needs: dict[str, tuple[int, ...]] = {STATE: (7,)}
        needs.update({f"observation.images.{c.name}": (c.height, c.width, 3) for c in contract.cameras})
        self.info = PolicyInfo("swinging", "test", HORIZON, 5, needs, contract.hash)

    def start(self, task: str) -> Swinging:
        return self

    def act(self, observation: Observation) -> np.ndarray:
        moments = observation.observed_at + np.arange(1, HORIZON + 1) / 20
        goal = MIDDLE + SWING * np.sin(2 * np.pi * 0.4 * moments)[:, None]
        # From where the arm is, so that no chunk begins with a jump.
        share = np.linspace(0, 1, HORIZON)[:, None]
        return observation.values[STATE] * (1 - share) + goal * share


class Watching:
    """A reward model whose progress rises, stands still, or falls, as it is told."""

    rate = 20.0
    stages = ("reach", "grasp")
    needs = {STATE: (7,)}  # noqa: RUF012

    def __init__(self) -> None:
        self.direction = 0.02

    def start(self, task: str) -> Watching.Run:
        return self.Run(self)

    class Run:
        def __init__(self, owner: Watching) -> None:
            self.owner, self.progress = owner, 0.0

        def step(self, observation: Observation) -> ProgressEstimate:
            self.progress = min(max(self.progress + self.owner.direction, 0.0), 0.9)
            stage = int(self.progress > 0.5)
            verdict, message = "on_track", ""
            if self.owner.direction <= 0.0:
                verdict, message = ("failing", "progress falls") if self.owner.direction else ("stalled", "no progress")
            return ProgressEstimate(
                self.progress,
                stage,
                Watching.stages[stage],
                0.02,
                verdict=verdict,
                message=message,
            )


class Script:
    """How the next chunks are bent."""

    def __init__(self, contract: RobotContract) -> None:
        self.mode = "normal"
        self.contract = contract
        self.policy = Swinging(contract)
        self.kept: Any = None

    def start(self, task: str) -> Any:
        self.policy.start(task)
        return self.answer

    def answer(self, job: Any) -> dict[str, Any]:
        mode = self.mode
        actions = self.policy.act(job.observation)
        joints = list(self.contract.joint_names)
        epoch = job.header["core_epoch"]
        if mode == "nan":
            actions[7, 3] = np.nan
        elif mode == "inf":
            actions[0, 5] = np.inf
        elif mode == "shape":
            actions = actions[:, :6]
        elif mode == "reordered":
            joints[1], joints[2] = joints[2], joints[1]
        elif mode == "wild":
            actions[10:, 4] -= 3.0
        elif mode == "beyond":
            actions[:, 1] = np.linspace(actions[0, 1], 2.5, len(actions))
        elif mode == "old_epoch":
            epoch -= 1
        elif mode == "late":
            time.sleep(1.4)
        elif mode == "slow":
            time.sleep(0.3)
        elif mode == "hangs":
            while self.mode == "hangs":
                time.sleep(0.01)
        elif mode == "raises":
            raise ValueError("the network is broken")
        reply = {
            "type": "chunk",
            "core_epoch": epoch,
            "consumed": job.header["consumed"],
            "joints": joints,
            "actions": actions,
            "seconds": 0.0,
            "received": job.received,
        }
        if mode == "out_of_order":
            # The answer to one observation is sent behind the answer to the next one.
            kept, self.kept = self.kept, None if self.kept else (job, reply)
            if kept is None:
                raise ValueError("later")
            threading.Timer(0.05, send, kept).start()
        if mode in ("nan", "inf", "shape", "reordered", "wild"):
            self.mode = "silent"  # one bad chunk, then nothing
        elif mode == "silent":
            raise ValueError("nothing to say")
        return reply


def send(job: Any, reply: dict[str, Any]) -> None:
    """Answer an observation outside of the worker."""
    header = job.header
    rest = {key: header[key] for key in ("episode", "observed_at", "epoch")}
    job.session.answer({**reply, **rest, "sequence": job.observation.sequence})


def main() -> None:
    contract = RobotContract.load(sys.argv[1])
    script, watching = Script(contract), Watching()
    credentials = Credentials(certificates=sys.argv[3]) if len(sys.argv) > 3 else None
    with PolicyServer(contract, sys.argv[2], script.policy, watching, credentials=credentials) as server:
        server.workers["chunk"].close()
        server.workers["chunk"] = Worker("scripted", script.start, script.policy.info.needs, lambda text: None)
        print("serving", flush=True)
        directions = {"rises": 0.02, "stalls": 0.0, "falls": -0.02}
        threading.excepthook = lambda arguments: print(arguments, file=sys.stderr, flush=True)
        for line in sys.stdin:
            word = line.strip()
            if word in directions:
                watching.direction = directions[word]
            else:
                script.mode = word
            print(word, flush=True)


if __name__ == "__main__":
    main()
