"""Training speed of policies: ours with and without weights against LeRobot's own training command, in one run.

    python benchmarks/policy_training.py --store demos.zarr [--episodes 8] [--steps 60] [--repeats 3]
        [--cases state pictures] [--clock wall|cpu] [--pairs BLOCKS] [--out benchmarks/results/policy_training.json]

The first episodes of the store are copied to a small store, which is exported to LeRobot's format; with pictures, one
camera at 96 x 128 (LeRobot's ACT does not resize). Both train ACT of the same shape, batch and device, data loading
included. LeRobot runs through `lerobot.scripts.lerobot_train.train` with 0 and with 2 loader processes, and the faster
one counts. The first ten steps of each run are left out. Medians over the repeats, taken in turn.

`--clock cpu` counts the processor time of the process and its threads instead of the time on the wall, for machines
that others use too; LeRobot then loads without further processes, whose time would not be seen.

`--pairs N` measures the price of weights alone, and better: a training with weights and one without go on in turn, ten
steps each, N times, the first of them alternating; what is told is the ratio over all and its bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robo_core.console import print_table, say
from robo_datasets import DemoStore
from robo_datasets.exporters.lerobot.exporter import export_lerobot
from robo_datasets.exporters.lerobot.layout import LeRobotSettings
from robo_policies import train_policy
from robo_policies.cloning.act import act_config
from robo_policies.cloning.images import Pictures
from robo_policies.cloning.learners import make_learner
from robo_policies.cloning.sample_weights import sample_weights
from robo_policies.cloning.settings import ActSettings, CloningSettings, WeightSettings
from robo_policies.cloning.trainer import CloningObjective
from robo_policies.cloning.windows import Windows, load_demonstrations, normalisation
from robo_rm.training.budget import Budget
from robo_rm.training.engine import Engine, Recipe

SIZE = (96, 128)
WARM_UP = 10
BLOCK = 10
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
    parser.add_argument("--pairs", type=int, default=0, help="measure weights against none in so many pairs of blocks")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="of the pairs")
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
    with tempfile.TemporaryDirectory() as folder, stamped(Engine, "step", options.clock) as ends:
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


def stepper(options: argparse.Namespace, store: DemoStore, case: str, weights: str) -> Callable[[], float]:
    """A training of ours; each call does ten steps and returns the seconds they took."""
    shape, sizes = settings(case), dict.fromkeys(store.cameras, SIZE)
    demonstrations = load_demonstrations(store)
    values = sample_weights(store, demonstrations, WeightSettings(weights)).values
    pictures = Pictures(store, demonstrations.uuids, demonstrations.starts, sizes, 2.0) if sizes else None
    torch.manual_seed(0)
    dims = {key: array.shape[1] for key, array in demonstrations.arrays.items()}
    learner = make_learner(shape, dims, sizes, options.device)
    statistics = normalisation(demonstrations, values, pictures)
    windows = Windows(demonstrations, values, learner.span, statistics, options.device, pictures, shape.shift)
    how = CloningSettings(batch_size=BATCH[case], precision=options.precision)
    objective = CloningObjective(learner, windows, how, 0, options.device)
    engine = Engine(objective, Recipe(Budget(BLOCK * (options.pairs + 1)), how.ema_decay), options.device)

    def advance() -> float:
        start = CLOCKS[options.clock]()
        for _ in range(BLOCK):
            engine.step(objective.batch(engine.steps))
        return CLOCKS[options.clock]() - start

    return advance


def run_pairs(options: argparse.Namespace, source: DemoStore, case: str, folder: Path) -> dict[str, Any]:
    """Speed with weights relative to that without, with its 95 % bootstrap interval over pairs of blocks."""
    store = small_store(source, folder / f"{case}.zarr", options.episodes, case == "pictures")
    ways = [stepper(options, store, case, weights) for weights in ("none", "rabc")]
    for advance in ways:
        advance()  # what is done for the first time is left out
    seconds = np.zeros((options.pairs, 2))
    for pair in range(options.pairs):
        for way in (0, 1) if pair % 2 == 0 else (1, 0):
            seconds[pair, way] = ways[way]()
    drawn = np.random.default_rng(0).integers(options.pairs, size=(10_000, options.pairs))
    sums = seconds[drawn].sum(1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    rates = options.pairs * BLOCK * BATCH[case] / seconds.sum(0)
    ratio = float(rates[1] / rates[0])
    say(
        f"{case}, {options.pairs * BLOCK} steps each, {options.precision}: {rates[0]:.1f} samples/s without weights, "
        f"{rates[1]:.1f} with, ratio {ratio:.3f} ({low:.3f} to {high:.3f})"
    )
    return {"samples_per_second": list(rates), "with_weights": ratio, "interval": [float(low), float(high)]}


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
    source = DemoStore.open(options.store)
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases:
            if options.pairs:
                record[case] = run_pairs(options, source, case, Path(folder))
                continue
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
