"""The hop model: quality over seeds, what each perspective and fusion is worth, and adaptation from one episode.

    python benchmarks/hop.py mixed=mixed.zarr held=held.zarr bottle=bottle.zarr
        [seeds=3] [steps=400] [parts=train,fusion,adapt] [on=mixed,bottle] [out=benchmarks/results/hop]

``mixed`` is trained on and ``held``, recorded apart, evaluated on; ``bottle`` is split by episode. Killed and started
again it resumes: each model and each judgement is kept in ``out``, so different ``parts``, and ``on``
different stores, may run at once. Stores as for docs/process_reward_model.md:

    robo-rm record env=tidy_drawer quality=mixed episodes=100 seed=0 store=mixed.zarr
    robo-rm record env=tidy_drawer quality=mixed episodes=60 seed=1000 store=held.zarr
    robo-rm import lerobot source=g1_pick_bottle store=bottle.zarr stages=g1_pick_bottle/subtasks.json

Adaptation, each from one episode to others of its kind that nobody trained on:

    look      from ``mixed`` to the same task in other colours, seen by a front camera on the other side; evaluated on
              12 mixed episodes recorded there
    bottle    from ``mixed`` (simulated drawer, two cameras, 7 joints) to ``bottle`` (real humanoid, one camera, 26);
              evaluated on 12 other episodes
    turned    from the 44 ordinary episodes of ``bottle`` to those in which the bottle starts where it else ends;
              evaluated on the other three of them
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robo_core.console import print_table, say
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv
from robo_policies.recording.recorder import RecordingPlan, missing_indices, record_episode
from robo_policies.rendering import import_mujoco
from robo_rm.evaluation.evaluate import evaluate_reward_model
from robo_rm.reward_models.grm.fusion import Perspectives
from robo_rm.reward_models.grm.model import HopRewardModel
from robo_rm.reward_models.grm.settings import FUSIONS, HopSettings
from robo_rm.reward_models.registry import FitRequest, reward_kind
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.training.budget import Budget

FIGURES = ("voc", "mse", "rho", "auroc", "hallucination", "hallucination_probes", "voc_reversed", "stage_accuracy")
# Where the bottle starts on the side on which the others put it down.
TURNED = (0, 1, 6, 9)
JUDGED = 12
JUDGED_ON = {"mixed": "held", "bottle": "bottle"}
MIXTURE: dict[str, float] = {
    "clean": 0.20,
    "slow": 0.20,
    "wandering": 0.17,
    "drop_and_regrasp": 0.13,
    "stops_partway": 0.17,
    "wrong_order": 0.13,
}
EPISODES = (0, 1)
"""Which of a kind's episodes are adapted to, one at a time."""

Figures = dict[str, float | None]


class Remembering(HopRewardModel):
    """A model that keeps what it saw of stored episodes, so that several fusions cost one look."""

    seen: dict[str, list[Perspectives]]

    def perspectives(self, episode: Any, task: str | None = None) -> list[Perspectives]:
        """As the model's own, once for each episode."""
        if episode.uuid not in self.seen:
            self.seen[episode.uuid] = super().perspectives(episode, task)
        return self.seen[episode.uuid]


class OtherLook(RecordingPlan):
    """The drawer environment repainted, with its front camera moved to the other side."""

    def make_env(self) -> TidyDrawerEnv:
        """The environment, changed."""
        env = super().make_env()
        assert isinstance(env, TidyDrawerEnv)
        model = env.model
        model.geom_rgba[:, :3] = model.geom_rgba[:, [2, 0, 1]]
        model.geom_rgba[model.geom("table").id, :3] = (0.45, 0.33, 0.24)
        camera, place, target = model.camera("front").id, np.array([0.60, 0.36, 0.52]), np.array([0.22, -0.02, 0.02])
        back = (place - target) / np.linalg.norm(place - target)
        right = np.cross([0, 0, 1], back)
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(back, right), back], axis=1)
        model.cam_pos[camera] = place
        import_mujoco().mju_mat2Quat(model.cam_quat[camera], axes.reshape(-1))
        return env


class Results:
    """Judgements by name, each kept in a JSON file of its own as it comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, name: str) -> bool:
        """Whether it is judged."""
        return (self.folder / f"{name}.json").exists()

    def keep(self, name: str, figures: Figures) -> None:
        """Write a judgement."""
        write_atomically(self.folder / f"{name}.json", json.dumps(figures, indent=1) + "\n")

    @property
    def rows(self) -> dict[str, Figures]:
        """All of them, in the order of their names."""
        return {path.stem: json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))}


def judge(model: Any, store: DemoStore, probes: int) -> Figures:
    """The figures of `robo-rm eval-reward`, of episodes that the model has not seen."""
    evaluation = evaluate_reward_model(model, store, probes=probes, resamples=50)
    values = {name: evaluation.metrics[name].value for name in FIGURES}
    values["stream_ms"] = evaluation.speed.stream_ms
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def fit(store: DemoStore, folder: Path, steps: int, seed: int, holdout: int, **changes: Any) -> HopRewardModel:
    """A hop model in a folder, trained unless it is there."""
    init = changes.pop("init", None)
    request = FitRequest(
        store=store, reward=replace(HopSettings(), **changes), folder=folder, budget=Budget(steps, None),
        holdout=holdout, seed=seed, init=init,
    )  # fmt: skip
    result = reward_kind("hop").fit(request)
    model = result.model
    assert isinstance(model, HopRewardModel)
    return model


def copy_episodes(source: DemoStore, path: Path, uuids: Sequence[str]) -> DemoStore:
    """A store with some of another's episodes, under the same names."""
    if path.exists():
        store = DemoStore.open(path)
    else:
        store = DemoStore.create(path, features=source.features, fps=source.fps, stages=source.stages)
    for sequence, uuid in enumerate(uuids):
        if uuid in store:
            continue
        episode = source.episode(uuid)
        keys = [key for key in source.features if key in episode]
        arrays = {key: episode[key][:] for key in keys}
        with store.writer(task=episode.task, success=episode.success, uuid=uuid, sequence=sequence) as writer:
            for t, (stamp, stage) in enumerate(zip(episode.timestamp, episode.stage, strict=True)):
                writer.add({key: arrays[key][t] for key in keys}, timestamp=float(stamp), stage=int(stage))
    return store


def recorded(path: Path, quality: str, seed: int, episodes: int) -> DemoStore:
    """Episodes of the repainted environment."""
    plan = OtherLook("tidy_drawer", quality, seed, mixture=MIXTURE)
    if path.exists():
        store = DemoStore.open(path)
    else:
        env = plan.make_env()
        store = DemoStore.create(path, features=plan.features(env), fps=env.fps, stages=list(env.stages))
    missing = missing_indices(store, plan, episodes)
    if missing:
        env = plan.make_env()
        for index in missing:
            record_episode(store, env, plan, index, "2000-01-01T00:00:00+00:00")
        env.close()
    return store


def train_part(
    stores: dict[str, DemoStore], on: Sequence[str], out: Path, results: Results, seeds: int, steps: int
) -> None:
    """Quality over seeds."""
    for name in on:
        for seed in range(seeds):
            key = f"train {name} {seed}"
            if key in results:
                continue
            say(key)
            model = fit(stores[name], out / f"{name}-{seed}", steps, seed, 8)
            results.keep(key, judge(model, stores[JUDGED_ON[name]], 6))


def fusion_part(stores: dict[str, DemoStore], on: Sequence[str], out: Path, results: Results, seeds: int) -> None:
    """Every fusion of the same perspectives."""
    for name in on:
        for seed in range(seeds):
            if f"train {name} {seed}" not in results:
                continue
            seen: dict[str, list[Perspectives]] = {}
            for fusion, alpha in [(f, 2.0) for f in FUSIONS] + [("gated", 0.0), ("gated", 20.0)]:
                key = f"fusion {name} {seed} {fusion}" + (f" alpha {alpha:g}" if fusion == "gated" else "")
                if key in results:
                    continue
                say(key)
                plain = load_reward_model(out / f"{name}-{seed}")
                assert isinstance(plain, HopRewardModel)
                other = plain.with_fusion(fusion, alpha)
                model = Remembering(other.network, other.description, other.provenance, other.device)
                model.seen = seen
                results.keep(key, judge(model, stores[JUDGED_ON[name]], 0))


def adapt_part(stores: dict[str, DemoStore], out: Path, results: Results) -> None:
    """From one episode to the others of its kind."""
    bottle = stores["bottle"]
    uuids = list(bottle.uuids)
    turned = [uuids[place] for place in TURNED]
    ordinary = [uuid for uuid in uuids if uuid not in turned]
    look = recorded(out / "look.zarr", "clean", 5000, max(EPISODES) + 1)
    look_judged = recorded(out / "look_judged.zarr", "mixed", 6000, JUDGED)
    bottle_judged = copy_episodes(bottle, out / "bottle_judged.zarr", ordinary[-JUDGED:])
    # What is adapted to comes from here, what it is evaluated on, and the model to start from.
    tasks = {
        "look": (look, list(look.uuids), look_judged, out / "mixed-0"),
        "bottle": (bottle, ordinary[: max(EPISODES) + 1], bottle_judged, out / "mixed-0"),
        "turned": (bottle, turned, copy_episodes(bottle, out / "turned.zarr", turned), out / "ordinary"),
    }
    for name, (source, candidates, others, base) in tasks.items():
        if name == "turned":
            fit(copy_episodes(bottle, out / "ordinary.zarr", ordinary), base, 300, 0, 0)
        if name != "bottle" and f"adapt {name} as it was" not in results:
            results.keep(f"adapt {name} as it was", judge(load_reward_model(base), others, 0))
        for place in EPISODES:
            single = copy_episodes(source, out / f"{name}-one-{place}.zarr", [candidates[place]])
            runs: dict[str, dict[str, Any]] = {"adapted": {"init": base}}
            if place == 0:
                runs |= {"without labels": {"init": base, "progress": "time"}, "from scratch": {}}
            for how, changes in runs.items():
                key = f"adapt {name} {how} {place}"
                if key in results:
                    continue
                say(key)
                folder = out / key.replace(" ", "-")
                model = fit(single, folder, 300, 0, 0, **changes)
                seconds = load_reward_model(folder).provenance["figures"]["train_seconds"]
                results.keep(key, {**judge(model, others, 0), "seconds": seconds})


def show(results: Results) -> None:
    """Tables of everything judged so far: mean over seeds or episodes, and the range."""
    groups: dict[str, list[Figures]] = {}
    for key, row in results.rows.items():
        words = key.split(" ")
        # The seed, or the number of the episode, is the third word or the last.
        at = 2 if words[0] in ("train", "fusion") else len(words) - 1
        groups.setdefault(" ".join(w for place, w in enumerate(words) if place != at or not w.isdigit()), []).append(
            row
        )
    names = [*FIGURES, "seconds"]
    table = [[group, len(rows), *(_cell(rows, name) for name in names)] for group, rows in groups.items()]
    print_table("hop model", ["what", "n", *names], table)


def _cell(rows: Sequence[Figures], name: str) -> str:
    values = [value for row in rows if (value := row.get(name)) is not None]
    if not values:
        return "-"
    digits = 1 if name == "seconds" else 4 if name == "mse" else 3
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    out = Path(given.get("out", "benchmarks/results/hop"))
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "judged")
    stores = {name: DemoStore.open(given[name]) for name in ("mixed", "held", "bottle")}
    parts, seeds = given.get("parts", "train,fusion,adapt").split(","), int(given.get("seeds", 3))
    on = given.get("on", "mixed,bottle").split(",")
    if "train" in parts:
        train_part(stores, on, out, results, seeds, int(given.get("steps", 400)))
    if "adapt" in parts:
        adapt_part(stores, out, results)
    if "fusion" in parts:
        fusion_part(stores, on, out, results, seeds)
    show(results)


if __name__ == "__main__":
    main()
