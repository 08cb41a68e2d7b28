"""Policies that look at pictures, on real demonstrations: the error of their actions on episodes held out.

    python benchmarks/image_policy.py --store g1_pick_bottle.zarr --out image_policy [--policy act] [--seeds 0 1 2]
        [--steps 400] [--holdout 8] [--set policy.dim_model=256 ...]

Trains the policy with every frame alike and with calibrated weights, on the same split for each seed, and measures how
far the predicted actions are from the demonstrated ones on held-out episodes: on all frames, and on frames as the
weights count them. The weights come from the stage labels of the store (section "progress labels" of
docs/reward_model.md), not from a learned model, so that this measures what the policy makes of them and nothing else;
they are written to the store as `label_weights`. `standing still` predicts the mean action of the training episodes.
Runs that are done are not done again; OUT/results.json has the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from robo_core.console import print_table, say
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_policies import train_policy
from robo_policies.cloning.holdout import held_out_errors, hold_out
from robo_policies.cloning.images import Pictures
from robo_policies.cloning.settings import POLICIES, CloningSettings, PolicySettings, WeightSettings
from robo_policies.cloning.windows import ACTION, load_demonstrations, normalisation
from robo_rm.labels.progress import episode_segments, progress_labels, training_priors
from robo_rm.training.budget import Budget
from robo_rm.weights.options import Calibration
from robo_rm.weights.rabc import store_weights

NAME = "label_weights"
SECONDS = 0.6
SHOWN = (
    "holdout_action_l1",
    "holdout_action_l1_normalised",
    "holdout_action_l1_executed",
    "holdout_action_l1_weighted",
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--policy", default="act", choices=list(POLICIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--holdout", type=int, default=8)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the policy, key=value")
    return parser.parse_args()


def write_weights(store: DemoStore) -> None:
    """Calibrated weights from the stage labels, under a name of their own."""
    horizon = round(SECONDS * store.fps)
    made = {"mode": "calibrated", "horizon": horizon, "of": "stage labels"}
    derived = store.derive(NAME, {**made, "calibration": dataclasses.asdict(Calibration())})
    if all(uuid in derived for uuid in store.uuids):
        return
    episodes = {uuid: store.episode(uuid) for uuid in store.uuids}
    priors = training_priors(episodes.values(), len(store.stages))
    progress, success = {}, {}
    for uuid, episode in episodes.items():
        labels = progress_labels(episode_segments(episode, len(store.stages)), priors, episode.length)
        if np.isnan(labels).any():
            raise SystemExit(f"{store.path}: episode {uuid} has frames without a stage")
        progress[uuid], success[uuid] = labels, episode.success
    for uuid, weights in store_weights(progress, horizon, success=success).weights.items():
        derived.write(uuid, {"weight": weights})


def shape(options: argparse.Namespace, store: DemoStore) -> PolicySettings:
    """The policy's settings: 20 actions of which 10 are carried out, all cameras at 96 x 128, and ``--set``."""
    given = {"chunk_size": 20, "execution_horizon": 10, "cameras": list(store.cameras), "image_size": [96, 128]}
    given |= {word.partition("=")[0]: yaml.safe_load(word.partition("=")[2]) for word in options.set}
    return POLICIES[options.policy](**given)


def run(options: argparse.Namespace, store: DemoStore, weighting: str, seed: int) -> dict[str, Any]:
    settings = shape(options, store)
    weights = WeightSettings("rabc", NAME) if weighting == "rabc" else WeightSettings()
    training = CloningSettings(batch_size=options.batch, learning_rate=options.rate)
    out = options.out / f"{options.policy}_{weighting}_{seed}"
    trained = train_policy(
        store, out, Budget(options.steps), settings, weights, training, seed, holdout=options.holdout, title=out.name
    )
    demonstrations = load_demonstrations(store)
    held = hold_out(store, demonstrations, options.holdout, seed)
    values = np.concatenate([store.derived(NAME).read(uuid)["weight"] for uuid in demonstrations.uuids])
    # Both are measured in the same units: those of all training frames.
    statistics = normalisation(demonstrations, (~held).astype(np.float32))
    pictures = Pictures(store, demonstrations.uuids, demonstrations.starts, trained.policy.cameras, 0.0)
    errors = held_out_errors(trained.policy, demonstrations, held, statistics, pictures, values)
    still = np.abs(demonstrations.arrays[ACTION][held] - statistics[ACTION]["mean"])
    keys = ("seconds", "steps", "samples_per_second")
    return {
        **errors,
        **{key: trained.metrics[key] for key in keys},
        "standing_still_l1": float(still.mean()),
        "standing_still_l1_normalised": float((still / statistics[ACTION]["std"]).mean()),
    }


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    store = DemoStore.open(options.store)
    write_weights(store)
    path = options.out / "results.json"
    asked = {key: str(value) for key, value in vars(options).items() if key not in ("out", "seeds")}
    report: dict[str, Any] = {"settings": asked, "runs": {}}
    if path.exists():
        report = json.loads(path.read_text())
        if report["settings"] != asked:
            raise SystemExit(f"{path} belongs to other settings; give another --out")
    for seed in options.seeds:
        for weighting in ("none", "rabc"):
            if f"{weighting}_{seed}" not in report["runs"]:
                report["runs"][f"{weighting}_{seed}"] = run(options, store, weighting, seed)
                write_atomically(path, json.dumps(report, indent=1))
    rows = []
    for weighting in ("none", "rabc"):
        found = [report["runs"][f"{weighting}_{seed}"] for seed in options.seeds]
        cells = [f"{np.mean([r[key] for r in found]):.4f} ± {np.std([r[key] for r in found]):.4f}" for key in SHOWN]
        rows.append([weighting, *cells, f"{np.mean([r['seconds'] for r in found]):.0f}"])
    still = [report["runs"][f"none_{seed}"] for seed in options.seeds]
    means = [np.mean([r[f"standing_still_{key}"] for r in still]) for key in ("l1", "l1_normalised")]
    rows.append(["standing still", *(f"{mean:.4f}" for mean in means), "-", "-", "-"])
    names = ["L1, units", "L1, normalised", "of what is carried out", "as the weights count", "seconds"]
    print_table(f"{options.store.name}, {options.policy}, {options.steps} steps", ["weights", *names], rows)
    say(f"settings: {dataclasses.asdict(shape(options, store))}")
    say(f"wrote {path}")


if __name__ == "__main__":
    main()
