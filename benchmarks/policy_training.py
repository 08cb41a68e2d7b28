"""Training speed of policies: ours with and without weights against LeRobot's own training command, in one run.

    python benchmarks/policy_training.py --store demos.zarr [--episodes 8] [--steps 60] [--repeats 3]
        [--cases state pictures] [--clock wall|cpu] [--out benchmarks/results/policy_training.json]

The first episodes of the store are copied to a small store, which is exported to LeRobot's format; with pictures, one
camera at 96 x 128 (LeRobot's ACT does not resize). Both train ACT of the same shape, batch and device, data loading
included. LeRobot runs through `lerobot.scripts.lerobot_train.train` with 0 and with 2 loader processes, and the faster
one counts. The first ten steps of each run are left out. Medians over the repeats, taken in turn.

`--clock cpu` counts the processor time of the process and its threads instead of the time on the wall, for machines
that others use too; LeRobot then loads without further processes, whose time would not be seen.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robo_datasets import DemoStore
from robo_datasets.console import print_table, say
from robo_datasets.exporters.lerobot import LeRobotSettings, export_lerobot
from robo_policies import train_policy
from robo_policies.cloning import trainer
from robo_policies.cloning.act import act_config
from robo_policies.cloning.settings import ActSettings, Budget, CloningSettings, WeightSettings

SIZE = (96, 128)
WARM_UP = 10
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
BATCH = {"state": 64, "pictures": 16}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=["state", "pictures"], choices=["state", "pictures"])
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


@contextmanager
def stamped(owner: Any, name: str, clock: str) -> Iterator[list[float]]:
    """The time at which each call of ``owner.name`` ended."""
    ends: list[float] = []
    whole = getattr(owner, name)

    def timed(*words: Any, **named: Any) -> Any:
        result = whole(*words, **named)
        ends.append(CLOCKS[clock]())
        return result

    setattr(owner, name, timed)
    try:
        yield ends
    finally:
        setattr(owner, name, whole)


def small_store(source: DemoStore, path: Path, episodes: int, pictures: bool) -> DemoStore:
    """The first episodes, with one camera or none, and weights between 0 and 1 for every frame."""
    vectors = ["observation.state", "action"]
    if "observation.environment_state" in source.features and not pictures:
        vectors.append("observation.environment_state")
    features: dict[str, Any] = {key: source.features[key] for key in vectors}
    camera = source.cameras[0] if pictures else None
    if camera:
        features[camera] = {"shape": (*SIZE, 3), "dtype": "uint8"}
    store = DemoStore.create(path, features, fps=source.fps)
    for number in range(min(episodes, len(source))):
        demo = source[number]
        arrays = {key: demo[key][:] for key in vectors}
        if camera:
            arrays[camera] = demo.frames(camera, slice(None), SIZE)
        with store.writer(task=demo.task or "task", success=demo.success) as episode:
            episode.extend(arrays)
    weights = store.derive("weights", {"mode": "made up"})
    random = np.random.default_rng(0)
    for uuid in store.uuids:
        weights.write(uuid, {"weight": random.uniform(0.01, 1, store.lengths[uuid]).astype(np.float32)})
    return store


def ours(options: argparse.Namespace, store: DemoStore, case: str, weights: str, precision: str) -> float:
    """Samples per second of our loop."""
    with tempfile.TemporaryDirectory() as folder, stamped(trainer._Run, "advance", options.clock) as ends:
        train_policy(
            store,
            Path(folder) / "policy",
            Budget(options.steps + WARM_UP),
            settings(case),
            WeightSettings(weights),
            CloningSettings(batch_size=BATCH[case], precision=precision),
            device=options.device,
        )
    return options.steps * BATCH[case] / (ends[-1] - ends[WARM_UP - 1])


def settings(case: str) -> ActSettings:
    return ActSettings(cameras=None if case == "pictures" else [], image_size=list(SIZE))


def lerobots(options: argparse.Namespace, store: DemoStore, data: Path, case: str, workers: int) -> float:
    """Samples per second of LeRobot's loop."""
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.scripts import lerobot_train

    dims = {key: value["shape"][0] for key, value in store.features.items() if key not in store.cameras}
    policy = act_config(settings(case), dims, dict.fromkeys(store.cameras, SIZE), options.device)
    with tempfile.TemporaryDirectory() as folder, stamped(lerobot_train, "update_policy", options.clock) as ends:
        lerobot_train.train.__wrapped__(
            TrainPipelineConfig(
                dataset=DatasetConfig(repo_id="benchmark/demos", root=str(data)),
                policy=policy,
                output_dir=Path(folder) / "out",
                batch_size=BATCH[case],
                steps=options.steps + WARM_UP,
                num_workers=workers,
                save_checkpoint=False,
                eval_freq=0,
                log_freq=0,
                use_policy_training_preset=True,
                optimizer=policy.get_optimizer_preset(),
            )
        )
    return options.steps * BATCH[case] / (ends[-1] - ends[WARM_UP - 1])


def run_case(options: argparse.Namespace, source: DemoStore, case: str, folder: Path) -> dict[str, float]:
    store = small_store(source, folder / f"{case}.zarr", options.episodes, case == "pictures")
    data = folder / f"{case}_lerobot"
    export_lerobot(store, data, LeRobotSettings(), 1)
    ways = {
        "ours, fp32": lambda: ours(options, store, case, "none", "fp32"),
        "ours, fp32, weights": lambda: ours(options, store, case, "rabc", "fp32"),
        "ours, as it comes": lambda: ours(options, store, case, "none", "auto"),
        "ours, as it comes, weights": lambda: ours(options, store, case, "rabc", "auto"),
        "LeRobot, 0 processes": lambda: lerobots(options, store, data, case, 0),
    }
    if options.clock == "wall":
        ways["LeRobot, 2 processes"] = lambda: lerobots(options, store, data, case, 2)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(options.repeats):
        # Forwards and backwards in turn, so that a machine that slows down meanwhile favours none.
        for name in list(ways)[:: 1 if repeat % 2 == 0 else -1]:
            found[name].append(ways[name]())
            say(f"{case}, {name}: {found[name][-1]:.1f} samples/s")
    return {name: float(np.median(rates)) for name, rates in found.items()}


def main() -> None:
    options = parse()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    source, record = DemoStore.open(options.store), {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases:
            rates = run_case(options, source, case, Path(folder))
            theirs = max(rate for name, rate in rates.items() if name.startswith("LeRobot"))
            rows = [[name, round(rate, 1), round(rate / theirs, 2)] for name, rate in rates.items()]
            print_table(f"ACT, {case}, batch {BATCH[case]}", ["", "samples/s", "times LeRobot"], rows)
            ratio = rates["ours, as it comes, weights"] / rates["ours, as it comes"]
            say(f"{case}: with weights, {ratio:.3f} of the speed without")
            record[case] = {"samples_per_second": rates, "with_weights": ratio}
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"steps": options.steps, "clock": options.clock, "cases": record}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
