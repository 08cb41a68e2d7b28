"""Observation to chunk and back: the transport beside pickled messages over a socket of the standard library.

    python benchmarks/transport.py [--trips 1500] [--rate 50] [--json out/transport.json]

Both serve the same policy, which copies its state 30 times, from a process of their own. Observations are six joints,
without images or with three cameras of 240 x 320 or 480 x 640; they are handed over at the rate of a control loop. The
transport is measured over a Unix socket, over loopback TCP with a secret, and over mutual TLS. `pickle` is
`multiprocessing.connection` over a Unix socket: what a bridge gets without a transport of its own, and how LeRobot's
asynchronous inference puts its messages into bytes. It blocks its caller, and it runs what it is sent.

`held up`: how long the control loop's own call takes. `round trip`: from handing over to having the chunk. The cases
take turns in blocks, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

import numpy as np

from robo_core.console import print_table, progress_bar, say
from robo_hw import RobotContract
from robo_hw.transport import ClientState, Credentials, Observation, PolicyClient, PolicyInfo, PolicyServer
from robo_policies.serving.certificates import make_certificates

HORIZON = 30
CAMERAS = ("front", "side", "wrist")
SIZES = ((0, 0), (240, 320), (480, 640))
BLOCK = 100


def contract(size: tuple[int, int]) -> RobotContract:
    """A SO-101 with three cameras of (height, width) pixels."""
    data = RobotContract.load("so101").to_dict()
    camera = {**data["cameras"][0], "width": size[1] or 8, "height": size[0] or 8}
    data["cameras"] = [{**camera, "name": name, "topic": f"/{name}/image_raw"} for name in CAMERAS]
    return RobotContract.from_dict(data)


class Copies:
    """The policy of both: as cheap as a policy can be."""

    def __init__(self, size: tuple[int, int]) -> None:
        pictures = {f"observation.images.{name}": (*size, 3) for name in CAMERAS} if size[0] else {}
        self.info = PolicyInfo("copies", "benchmark", HORIZON, 10, {"observation.state": (6,), **pictures})

    def start(self, task: str) -> Copies:
        return self

    def act(self, observation: Observation) -> np.ndarray:
        return np.repeat(observation.values["observation.state"][None], HORIZON, axis=0)


def credentials(folder: str, address: str, side: str) -> Credentials:
    """What proves this side at an address."""
    if address.startswith("tls"):
        return Credentials(certificates=f"{folder}/certificates/{side}")
    return Credentials(secret=f"{folder}/secret") if address.startswith("tcp") else Credentials()


def serve_ours(folder: str, address: str, size: tuple[int, int], ready: Any, done: Any) -> None:
    given = credentials(folder, address, "server")
    with PolicyServer(contract(size), address, Copies(size), credentials=given) as server:
        ready.put(str(server.address))
        done.wait()


def serve_pickle(folder: str, address: str, size: tuple[int, int], ready: Any, done: Any) -> None:
    with Listener(address, family="AF_UNIX") as listener:
        ready.put(address)
        with listener.accept() as connection:
            while (message := connection.recv()) is not None:
                connection.send(np.repeat(message["observation.state"][None], HORIZON, axis=0).astype(np.float64))


class Ours:
    """One client of the transport."""

    def __init__(self, folder: str, address: str, size: tuple[int, int]) -> None:
        self.contract = contract(size)
        self.client = PolicyClient(self.contract, address, credentials=credentials(folder, address, "bridge"))
        self.client.connect()
        while self.client.status().state is not ClientState.CONNECTED:
            time.sleep(0.01)

    def trip(self, state: np.ndarray, images: dict[str, np.ndarray]) -> tuple[float, float]:
        """(seconds held up, seconds of the round trip)."""
        began = time.perf_counter()
        names = self.contract.joint_names
        taken = self.client.send_observation(names, state, images, observed_at=began, want=("chunk",))
        held = time.perf_counter() - began
        if not taken:
            raise RuntimeError(self.client.status().message)
        while self.client.poll().chunk is None:
            time.sleep(20e-6)
        return held, time.perf_counter() - began

    def close(self) -> None:
        self.client.close()


class Pickled:
    """The peer's client."""

    def __init__(self, folder: str, address: str, size: tuple[int, int]) -> None:
        self.connection = Client(address, family="AF_UNIX")

    def trip(self, state: np.ndarray, images: dict[str, np.ndarray]) -> tuple[float, float]:
        """The same twice: it blocks."""
        began = time.perf_counter()
        pictures = {f"observation.images.{name}": image for name, image in images.items()}
        self.connection.send({"observation.state": state, **pictures})
        self.connection.recv()
        spent = time.perf_counter() - began
        return spent, spent

    def close(self) -> None:
        self.connection.send(None)
        self.connection.close()


def measure(trips: int, rate: float, folder: str) -> dict[str, dict[str, float]]:
    context = multiprocessing.get_context("spawn")
    make_certificates(Path(folder) / "certificates", ["127.0.0.1"])
    kinds: dict[str, tuple[Callable[..., None], Callable[..., Any], str]] = {
        "transport, Unix socket": (serve_ours, Ours, f"unix:{folder}/ours"),
        "transport, loopback TCP, secret": (serve_ours, Ours, "tcp://127.0.0.1:0"),
        "transport, loopback TLS": (serve_ours, Ours, "tls://127.0.0.1:0"),
        "pickle, Unix socket": (serve_pickle, Pickled, f"{folder}/pickle"),
    }
    clients, processes, done = {}, [], context.Event()
    random = np.random.default_rng(0)
    pictures = {
        size: {name: random.integers(0, 255, (*size, 3), np.uint8) for name in CAMERAS} if size[0] else {}
        for size in SIZES
    }
    for size in SIZES:
        for name, (serve, make, address) in kinds.items():
            ready = context.Queue()
            place = address if address.startswith("t") else f"{address}{size[0]}"
            process = context.Process(target=serve, args=(folder, place, size, ready, done), daemon=True)
            process.start()
            processes.append(process)
            clients[name, size] = make(folder, ready.get(timeout=60), size)
    spent: dict[tuple[str, tuple[int, int]], list[tuple[float, float]]] = {key: [] for key in clients}
    with progress_bar("round trips", total=trips * len(clients), unit="trips") as bar:
        for block in range(0, trips, BLOCK):
            for key, client in clients.items():
                due = time.perf_counter()
                for _ in range(min(BLOCK, trips - block)):
                    due += 1 / rate
                    time.sleep(max(due - time.perf_counter(), 0.0))
                    spent[key].append(client.trip(random.normal(size=6), pictures[key[1]]))
                bar.advance(min(BLOCK, trips - block))
    for client in clients.values():
        client.close()
    done.set()
    for process in processes:
        process.join(10)
    result = {}
    for (name, size), values in spent.items():
        held, trip = np.array(values).T * 1e3
        figures = {
            f"{what}_p{q}_ms": float(np.percentile(numbers, q))
            for what, numbers in (("held_up", held), ("round_trip", trip))
            for q in (50, 99)
        }
        result[f"{name}, {f'3 x {size[0]}x{size[1]}' if size[0] else 'no images'}"] = figures
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trips", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--json", type=Path, default=Path("out/transport.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.trips, arguments.rate, folder)
    columns = ["held_up_p50_ms", "held_up_p99_ms", "round_trip_p50_ms", "round_trip_p99_ms"]
    rows = [[case, *(f"{figures[key]:.2f}" for key in columns)] for case, figures in result.items()]
    print_table(
        "ms",
        ["case", "held up p50", "held up p99", "round trip p50", "round trip p99"],
        rows,
    )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    about = {"python": platform.python_version(), "numpy": np.__version__, "rate": arguments.rate}
    arguments.json.write_text(json.dumps({**about, "trips": arguments.trips, "cases": result}, indent=1) + "\n")
    say(f"written to {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
