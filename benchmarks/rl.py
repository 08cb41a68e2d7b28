"""Does a progress reward speed up learning, and does it change what is learned?

    python benchmarks/rl.py --out out/rl [--tasks open drawer_open ...] [--arms sparse additive pbrs ...]
        [--seeds 0 1 2] [--minutes 12] [--processes 2] [--most CELLS] [--table]

A task is a recipe of train-rl (configs/experiment/rl_<task>.yaml), demonstrations for the learner, and videos for the
reward model. The demonstrations are those
of operators who gave up somewhere: cloning them never succeeds. The videos show the whole task in mixed quality, but
not the commands, as a recording of somebody else's hand; only the reward model is trained on them, and beside them on a
few rollouts of the demonstrations' clone with the simulator's stages: videos alone do not show what a learner's
failures look like, and the model mistakes them for progress (--tries 0 shows that). The tasks `one_shot...` give the
learner one clean demonstration instead, and a hop model that was trained on another skill and adapted from that one
demonstration. Every cell (task, arm, seed) learns from the same demonstrations with the same settings but for the
reward. Arms:

    sparse        success alone
    unshaped      success alone, with all else that progress gives: filtered prior, early termination, potential
    additive      success and the reward model's progress at every macro-action
    pbrs          success and potential-based shaping by the reward model's progress Phi: the default of train-rl
    pbrs_centred  the same with Phi - 1
    <mode>        any other shaping of `robo-rm train-rl`, from the reward model's progress
    <mode>_true   the same from the simulator's own progress: what a perfect reward model would give
    <mode>_plain  the same, but the behaviour prior is cloned from all demonstrations, not from what made progress:
                  how much is due to shaping, how much to the prior
    worst, lcb    pbrs from an ensemble of three reward models: the least progress, or the mean less the variance
    sb3_sac       Stable-Baselines3's SAC with pbrs, as a baseline

Cells run one a core, at most --minutes each, and leave OUT/<task>/<arm>_<seed>/cell.json; run the same command again
for what is missing, also within a cell. `--table` prints what there is: control steps until evaluations reach
50, 90 and 95 % success (median over the seeds, with their range, `>` where some seed never did), and the success at
the end with a 95 % interval. OUT/curves_<task>.png shows the curves. Speed and memory are measured by rl_speed.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cells import check_settings, read_results, robo_rm, run, run_cells
from parts import annotate_parts
from rl_tasks import TASKS, Task

from robo_core.console import print_table, say
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_policies.rl.settings import SacSettings
from robo_rm.metrics.intervals import wilson_interval
from robo_rm.scoring import model_hash
from robo_rm.shaping.potential import TRUE_PROGRESS

MILESTONES = (0.5, 0.9, 0.95)
TRUE, PLAIN = "_true", "_plain"
ENSEMBLES = ("worst", "lcb")
ARMS = ("sparse", "additive", "pbrs", "pbrs_centred", "pbrs_true")
ROLLOUTS = str(Path(__file__).parent / "contenders" / "clone_rollouts.py")
# First seeds of the rollouts that reward models learn from, and of those that rl_potential.py evaluates them on.
TRIES_FROM, HELD_OUT_FROM = 500_000_000, 600_000_000
# Evaluations at the end of a run that are pooled for its final success.
LAST = 3
# Demonstrations recorded for each that is used, where only those are that gave up early.
FOR_ONE = 6
COLOURS = ("#3b6fb6", "#d1702b", "#3a8f4d", "#8a5fb0", "#b03a4e", "#6d6d6d", "#b09a2b", "#2b9ab0", "#c05fa0", "#5f7d3a")


@dataclass(frozen=True)
class Cell:
    """One run."""

    task: str
    arm: str
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.task}/{self.arm}_{self.seed}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="control steps of every run, instead of the task's own")
    parser.add_argument("--tries", type=int, help="of the clone, for the reward model, instead of the task's own")
    parser.add_argument("--minutes", type=float, default=12.0, help="maximum minutes of a run")
    parser.add_argument("--processes", type=int, default=0, help="0: up to two")
    parser.add_argument("--most", type=int, help="stop after so many cells")
    parser.add_argument("--table", action="store_true", help="print what there is and run nothing")
    return parser.parse_args()


def needs_model(arm: str) -> bool:
    """Whether the reward is made from the reward model's progress."""
    return arm.removesuffix(PLAIN) != "sparse" and not arm.removesuffix(PLAIN).endswith(TRUE)


def prepare(options: argparse.Namespace, name: str, arms: set[str]) -> DemoStore:
    """The task's demonstrations and the reward models that the arms need; what is there already is left as it is."""
    model, several = any(needs_model(arm) for arm in arms), bool(arms & set(ENSEMBLES))
    task, folder = TASKS[name], options.out / name
    path, videos = folder / "demos.zarr", folder / "videos.zarr"
    record_demonstrations(task, path)
    if task.like:
        prepare(options, task.like, arms)
        return DemoStore.open(path)
    if model and not (folder / "reward" / "metrics.json").exists():
        record(task.base or task.settings.env, videos, "mixed", task.videos, seed=0, parts=task.parts)
        if task.base:
            hop = ("train-reward", "reward=hop", *task.reward)
            robo_rm(None, *hop, f"store={videos}", f"out={folder}/base", "steps=400", "reward.plan.elsewhere=0.1")
            robo_rm(None, *hop, f"init={folder}/base", f"store={path}", f"out={folder}/reward")
            return DemoStore.open(path)
        training, tries = videos, task.tries if options.tries is None else options.tries
        if tries:
            training = folder / "tries.zarr"
            if not training.exists():
                numbers = map(str, (tries, task.settings.learning.action_repeat, TRIES_FROM, *task.noises))
                run(None, ROLLOUTS, str(path), str(videos), str(training), task.settings.env, *numbers)
        robo_rm(None, "train-reward", f"store={training}", f"out={folder}/reward", *task.reward)
    if several and not (folder / "ensemble" / "metrics.json").exists():
        if task.base:
            raise SystemExit(f"{name} has a hop model adapted from one demonstration; no ensemble is made of those")
        training = folder / "tries.zarr" if (folder / "tries.zarr").exists() else videos
        settings = [word.replace("reward.", "reward.settings.") for word in task.reward]
        words = ("reward=ensemble", "reward.members=3", *settings)
        robo_rm(None, "train-reward", f"store={training}", f"out={folder}/ensemble", *words)
    return DemoStore.open(path)


def record_demonstrations(task: Task, path: Path) -> None:
    """The demonstrations that the learner is given, unless they are there."""
    if task.max_progress >= 1:
        record(task.settings.env, path, task.quality, task.demonstrations, seed=77, parts=task.parts)
        return
    if path.exists():
        return
    partial, wanted = Path(f"{path}.part"), task.demonstrations
    shutil.rmtree(partial, ignore_errors=True)
    record(task.settings.env, partial, task.quality, FOR_ONE * wanted, seed=77, parts=task.parts)
    store = DemoStore.open(partial)
    reached = {uuid: float(np.max(store.episode(uuid)[TRUE_PROGRESS][:])) for uuid in store.uuids}
    fitting = [uuid for uuid in store.uuids if reached[uuid] <= task.max_progress][:wanted]
    if len(fitting) < wanted:
        raise SystemExit(
            f"{task.settings.env}: {len(fitting)} of {FOR_ONE * wanted} demonstrations gave up by {task.max_progress}, "
            f"not {wanted}"
        )
    store.remove([uuid for uuid in store.uuids if uuid not in fitting])
    partial.rename(path)


def record(env: str, path: Path, quality: str, episodes: int, seed: int, parts: int = 0) -> None:
    """Demonstrations in an environment, unless they are there; annotated with so many parts, 0 for its own stages."""
    if path.exists() and len(DemoStore.open(path)) >= episodes:
        return
    recorded = path.with_name(f"recorded_{path.name}") if parts else path
    words = (f"quality={quality}", f"episodes={episodes}", f"store={recorded}", f"seed={seed}")
    robo_rm(None, "record", f"env={env}", *words)
    if parts:
        shutil.rmtree(path, ignore_errors=True)
        annotate_parts(DemoStore.open(recorded), path, parts)
        shutil.rmtree(recorded)


def model_of(arm: str, out: Path, name: str) -> Path:
    """Folder of the reward model that an arm of a task learns from."""
    return out / (TASKS[name].like or name) / ("ensemble" if arm in ENSEMBLES else "reward")


def reward_words(arm: str, model: Path) -> tuple[str, ...]:
    """Settings of train-rl for the reward, from this model where it takes one, and the learner."""
    if arm == "sparse":
        return ("shaping=sparse", "potential=none")
    if arm == "unshaped":
        return ("shaping=sparse", f"reward_model={model}")
    if arm.startswith("sb3_"):
        return (f"learner={arm}", "shaping=pbrs", f"reward_model={model}")
    if arm in ENSEMBLES:
        return ("shaping=pbrs", f"shaping.ensemble={arm}", f"reward_model={model}")
    if arm.endswith(PLAIN):
        return (*reward_words(arm.removesuffix(PLAIN), model), "learning.prior_filter=false")
    if arm.endswith(TRUE):
        return (f"shaping={arm.removesuffix(TRUE)}", "potential=true")
    return (f"shaping={arm}", f"reward_model={model}")


def settings_of(options: argparse.Namespace, name: str, store: DemoStore) -> dict[str, Any]:
    """What the outcome of a cell depends on, beside arm and seed; its steps and minutes, which may differ."""
    settings = TASKS[name].settings
    learning = {**asdict(settings.learning), **asdict(SacSettings())}
    return {"env": settings.env, "learning": learning, "store": store.content_hash()}


def run_cell(options: argparse.Namespace, cell: Cell, store: DemoStore, core: int | None) -> None:
    folder = options.out / cell.folder
    settings = settings_of(options, cell.task, store)
    task = TASKS[cell.task]
    steps = options.steps or task.settings.steps
    model = model_of(cell.arm, options.out, cell.task)
    robo_rm(
        core,
        *("train-rl", f"experiment={task.recipe}", f"store={store.path}", f"out={folder}/run", f"seed={cell.seed}"),
        *(f"steps={steps}", f"minutes={options.minutes}", "device=cpu"),
        *reward_words(cell.arm, model),
    )
    state = json.loads((folder / "run" / "training" / "learning.json").read_text())
    result = {
        "task": cell.task,
        "arm": cell.arm,
        "seed": cell.seed,
        "settings": settings,
        "reward_model": model_hash(str(model)) if needs_model(cell.arm) else None,
        "steps": steps,
        "minutes": options.minutes,
        "curve": state["curve"],
        "metrics": json.loads((folder / "run" / "metrics.json").read_text()),
    }
    write_atomically(folder / "cell.json", json.dumps(result, indent=1))


def read_cells(options: argparse.Namespace) -> dict[Cell, dict[str, Any]]:
    """Finished cells of the tasks asked for."""
    found = read_results(options.out, options.tasks)
    return {Cell(result["task"], result["arm"], result["seed"]): result for result in found}


def steps_to(curve: list[dict[str, float]], milestone: float) -> float:
    """Control steps at the first evaluation that reached the milestone; infinite where none did."""
    return next((point["steps"] for point in curve if point["success"] >= milestone), float("inf"))


def rows_of(cells: dict[Cell, dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """One row per arm of a task."""
    rows = []
    for arm in dict.fromkeys(cell.arm for cell in cells if cell.task == name):
        runs = {cell.seed: result for cell, result in cells.items() if (cell.task, cell.arm) == (name, arm)}
        ends = [point["success"] for result in runs.values() for point in result["curve"][-LAST:]]
        episodes = len(ends) * 20
        rate, low, high = wilson_interval(round(sum(ends) * 20), episodes)
        rows.append(
            {
                "task": name,
                "arm": arm,
                "seeds": sorted(runs),
                "first": float(np.mean([result["curve"][0]["success"] for result in runs.values()])),
                "steps_to": {
                    f"{100 * milestone:.0f}": sorted(steps_to(result["curve"], milestone) for result in runs.values())
                    for milestone in MILESTONES
                },
                "final": rate,
                "final_interval": [low, high],
                "steps": sorted(result["metrics"]["steps"] for result in runs.values()),
                "steps_per_second": float(np.median([r["metrics"]["steps_per_second"] for r in runs.values()])),
            }
        )
    return sorted(rows, key=lambda row: (ARMS.index(row["arm"]) if row["arm"] in ARMS else len(ARMS), row["arm"]))


def show(options: argparse.Namespace) -> None:
    """Print a table per task, write OUT/table.json and a figure of the curves per task."""
    cells = read_cells(options)
    table = []
    for name in options.tasks:
        rows = rows_of(cells, name)
        if not rows:
            continue
        table += rows
        body = [
            (
                row["arm"],
                str(len(row["seeds"])),
                f"{100 * row['first']:.0f}",
                *(_steps(row["steps_to"][f"{100 * milestone:.0f}"], row["steps"]) for milestone in MILESTONES),
                "{:.0f} ({:.0f} to {:.0f})".format(100 * row["final"], *(100 * end for end in row["final_interval"])),
                f"{row['steps'][0] / 1000:.0f}k",
                f"{row['steps_per_second']:.0f}",
            )
            for row in rows
        ]
        columns = ["reward", "seeds", "clone %", "to 50 %", "to 90 %", "to 95 %", "final % (95 %)", "steps", "steps/s"]
        task = TASKS[name]
        title = f"{name}: {task.settings.env}, demonstrations: {task.demonstrations} of quality {task.quality}"
        print_table(title, columns, body)
        _picture(cells, name, options.out / f"curves_{name}.png")
    if not table:
        say(f"{options.out} holds no finished cell yet")
        return
    write_atomically(options.out / "table.json", json.dumps(table, indent=1, default=float))


def _steps(reached: list[float], taken: list[float]) -> str:
    """The median over seeds with its range, in thousands of control steps."""

    def text(value: float) -> str:
        return f"{value / 1000:.1f}k" if np.isfinite(value) else f">{min(taken) / 1000:.0f}k"

    middle = reached[(len(reached) - 1) // 2] if len(reached) % 2 else reached[len(reached) // 2]
    return text(middle) if len(reached) == 1 else f"{text(middle)} ({text(reached[0])} to {text(reached[-1])})"


def _picture(cells: dict[Cell, dict[str, Any]], name: str, path: Path) -> None:
    """Mean success over the seeds, with the range between them, against control steps."""
    from robo_rm.report.style import new_figure, place, plain, save_image, write_title

    figure = new_figure(7.2, 3.9)
    write_title(figure, f"{TASKS[name].settings.env}: success while learning", 0.12)
    axes = plain(place(figure, 0.65, 0.45, 6.3, 2.95))
    for colour, row in zip(COLOURS * 3, rows_of(cells, name), strict=False):
        curves = [cells[Cell(name, row["arm"], seed)]["curve"] for seed in row["seeds"]]
        grid = np.unique([point["steps"] for curve in curves for point in curve])
        grid = grid[grid <= min(curve[-1]["steps"] for curve in curves)]
        values = np.array(
            [np.interp(grid, [p["steps"] for p in curve], [p["success"] for p in curve]) for curve in curves]
        )
        axes.plot(grid, values.mean(axis=0), color=colour, linewidth=1.6, label=row["arm"])
        if len(curves) > 1:
            axes.fill_between(grid, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("control steps")
    axes.legend(frameon=False, fontsize=9, ncols=5, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    save_image(figure, path)


def main() -> None:
    options = parse()
    if options.table:
        show(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    # All arms of a seed before the next seed, so that an interrupted comparison is a fair one.
    wanted = [Cell(name, arm, seed) for name in options.tasks for seed in options.seeds for arm in options.arms]
    done = read_cells(options)
    missing = [cell for cell in wanted if cell not in done][: options.most]
    for name in options.tasks:
        finished = [result for cell, result in done.items() if cell.task == name]
        left = [cell for cell in missing if cell.task == name]
        if not left:
            continue
        store = prepare(options, name, {cell.arm for cell in left})
        check_settings(options.out / name, finished, settings_of(options, name, store))

        def work(cell: Cell, core: int | None, store: DemoStore = store) -> None:
            run_cell(options, cell, store, core)

        run_cells(name, left, len(finished), options.processes, work)
    show(options)


if __name__ == "__main__":
    main()
