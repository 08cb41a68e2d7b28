"""Does a reward model measure progress right where a learner will need it?

    python benchmarks/rl_potential.py --out out/rl --task open [--models FOLDER ...] [--tries 24]

In the folder of rl.py. Records rollouts of the clone of the task's demonstrations, with noise of .1, .3 and .5 on its
actions in turn, from initial states that no reward model was trained on, and compares each model at every macro-action
with the simulator's own progress. Metrics on demonstrations say nothing about this. The columns: correlation over all
macro-actions; correlation of the changes from one macro-action to the next, which is what shaping pays; of the changes
over three; mean difference; mean squared difference.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cells import run
from rl import HELD_OUT_FROM, ROLLOUTS, model_of, record_demonstrations
from rl_tasks import TASKS

from robo_core.console import print_table
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_rm import load_reward_model
from robo_rm.scoring import model_hash, read_prediction, score_progress
from robo_rm.shaping.potential import TRUE_PROGRESS

NOISES = (0.1, 0.3, 0.5)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--models", nargs="+", type=Path, help="instead of the task's own")
    parser.add_argument("--tries", type=int, default=24)
    return parser.parse_args()


def recorded(out: Path, name: str, tries: int) -> DemoStore:
    """The task's demonstrations and, beside them, the rollouts, unless they are there."""
    task, folder = TASKS[name], out / name
    demonstrations, held_out = folder / "demos.zarr", folder / f"held_out_{tries}.zarr"
    record_demonstrations(task, demonstrations)
    if not held_out.exists():
        numbers = map(str, (tries, task.settings.learning.action_repeat, HELD_OUT_FROM, *NOISES))
        run(None, ROLLOUTS, str(demonstrations), str(demonstrations), str(held_out), task.settings.env, *numbers)
    return DemoStore.open(held_out)


def agreement_of(predicted: list[npt.NDArray[np.float64]], true: list[npt.NDArray[np.float64]]) -> dict[str, float]:
    """Agreement of progress (macro-actions,) of each rollout with the simulator's."""

    def changes(values: list[npt.NDArray[np.float64]], lag: int) -> npt.NDArray[np.float64]:
        return np.concatenate([one[lag:] - one[:-lag] for one in values])

    def agreement(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
        return float(np.corrcoef(first, second)[0, 1])

    error = np.concatenate(predicted) - np.concatenate(true)
    return {
        "correlation": agreement(np.concatenate(predicted), np.concatenate(true)),
        "of changes": agreement(changes(predicted, 1), changes(true, 1)),
        "over three": agreement(changes(predicted, 3), changes(true, 3)),
        "bias": float(error.mean()),
        "mse": float(np.square(error).mean()),
    }


def main() -> None:
    options = parse()
    store, every = (
        recorded(options.out, options.task, options.tries),
        TASKS[options.task].settings.learning.action_repeat,
    )
    episodes = [store.episode(uuid) for uuid in store.uuids]
    tries = [episode for episode in episodes if episode.attributes.get("quality") == "clone"]
    true = [np.asarray(one[TRUE_PROGRESS][:], dtype=np.float64).ravel()[::every] for one in tries]
    table = []
    for folder in options.models or [model_of("pbrs", options.out, options.task)]:
        derived = score_progress(load_reward_model(str(folder)), model_hash(str(folder)), store)
        predicted = [read_prediction(derived, one.uuid).progress.astype(np.float64)[::every] for one in tries]
        table.append({"model": str(folder), "tries": len(tries), **agreement_of(predicted, true)})
    names = list(table[0])[2:]
    body = [(row["model"], *(f"{row[name]:.3f}" for name in names)) for row in table]
    print_table(f"{options.task}: {len(tries)} rollouts, progress at every macro-action", ["model", *names], body)
    write_atomically(options.out / options.task / "potential.json", json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
