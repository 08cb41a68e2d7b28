"""The stage-aware model against the baselines: same store, same encoder settings, same number of supervised frames.

    python benchmarks/reward_baselines.py train=mixed.zarr judge=held.zarr [seeds=3] [steps=1200] [kinds=stage,success]
        [probes=12] [out=benchmarks/results/reward_baselines]

Each model is trained on all of ``train`` with the conv encoder for the same number of steps of 128 to 144 supervised
frames, and evaluated on all of ``judge``, which none has seen. Killed and started again it resumes: each
model and each judgement is kept in ``out``. Stores as used for docs/reward_baselines.md:

    robo-rm record env=tidy_drawer quality=mixed episodes=100 seed=0 store=mixed.zarr
    robo-rm record env=tidy_drawer quality=mixed episodes=60 seed=1000 store=held.zarr

Zero-shot image-text similarity needs the weights of a CLIP: add ``kinds=image_text clip=FOLDER``.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from robo_core.console import print_table, say
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_rm.evaluation.evaluate import evaluate_reward_model
from robo_rm.reward_models.registry import FitRequest, reward_kind
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.training.budget import Budget

TRAINED = ("stage", "frame_index", "goal_distance", "success")
FIGURES = (
    *("auroc", "rho", "kendall_tau", "fpr_at_recall", "hallucination", "hallucination_probes", "boundary_f1"),
    *("stage_accuracy", "mse", "voc", "voc_reversed", "ece_success"),
)


def trained(kind: str, seed: int, store: DemoStore, folder: Path, steps: int, clip: str | None) -> None:
    """Train one model, or find it finished."""
    found = reward_kind(kind)
    settings = found.settings()
    if kind == "image_text":
        settings = replace(settings, clip=clip, goal="the cube lies in the closed drawer")
        if (folder / "config.yaml").exists():
            return
    request = FitRequest(
        store=store, reward=settings, folder=folder, budget=Budget(steps, None), holdout=0, seed=seed, device="auto"
    )
    found.fit(request)


def judged(kind: str, seed: int, folder: Path, store: DemoStore, probes: int, path: Path) -> dict[str, float | None]:
    """The figures of one model on the held-out store, kept in ``path``."""
    if path.exists():
        kept: dict[str, float | None] = json.loads(path.read_text())
        return kept
    result = evaluate_reward_model(load_reward_model(folder), store, probes=probes, resamples=200)
    flat = {name: figure.value for name, figure in result.metrics.items()}
    flat |= {f"probe.{name}": row["claimed"] for name, row in result.by_probe.items()}
    flat |= {"stream_ms": result.speed.stream_ms, "frames_per_second": result.speed.frames_per_second}
    clean = {name: value if math.isfinite(value) else None for name, value in flat.items()}
    write_atomically(path, json.dumps({"kind": kind, "seed": seed, **clean}, indent=1) + "\n")
    return clean


def main(words: list[str]) -> None:
    options = dict(word.split("=", 1) for word in words)
    out = Path(options.get("out", "benchmarks/results/reward_baselines"))
    steps, seeds, probes = (
        int(options.get(key, value)) for key, value in (("steps", 1200), ("seeds", 3), ("probes", 12))
    )
    kinds = options["kinds"].split(",") if "kinds" in options else list(TRAINED)
    store, held = DemoStore.open(options["train"]), DemoStore.open(options["judge"])
    for seed in range(seeds):
        for kind in kinds:
            folder = out / f"{kind}_{seed}"
            say(f"{kind}, seed {seed}")
            trained(kind, seed, store, folder, steps, options.get("clip"))
            judged(kind, seed, folder, held, probes, out / f"{kind}_{seed}.json")
            summarise(out)


def summarise(out: Path) -> None:
    """Print and write the mean and the spread over seeds of everything that has been judged."""
    found: dict[str, list[dict[str, float | None]]] = {}
    for path in sorted(out.glob("*_[0-9]*.json")):
        run = json.loads(path.read_text())
        found.setdefault(run["kind"], []).append(run)
    table = {
        kind: {name: _mean_and_spread([run.get(name) for run in runs]) for name in FIGURES} | {"seeds": len(runs)}
        for kind, runs in found.items()
    }
    write_atomically(out / "table.json", json.dumps(table, indent=1) + "\n")
    order = [kind for kind in (*TRAINED, *table) if kind in table]
    rows = [[name, *(table[kind][name] for kind in dict.fromkeys(order))] for name in (*FIGURES, "seeds")]
    print_table("mean (standard deviation) over seeds", ["figure", *dict.fromkeys(order)], rows)


def _mean_and_spread(values: list[float | None]) -> str:
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(known):
        return "-"
    return f"{known.mean():.3f} ({known.std():.3f})" if len(known) > 1 else f"{known[0]:.3f}"


if __name__ == "__main__":
    main(sys.argv[1:])
