"""Does weighting demonstrations by progress pay? One policy cloned with seven weightings, and its successes counted.

    python benchmarks/rabc.py --out out/rabc [--studies tidy_drawer drawer_open ...] [--arms bc calibrated ...]
        [--seeds 0 1 2] [--steps 2000] [--episodes 100] [--processes 2] [--most CELLS] [--table]

A study is an environment, demonstrations of mixed quality, and a policy with its training, which are the recipe
`robo-rm train-policy experiment=rabc_STUDY`. Its store is recorded, a reward model is trained on it and scores it; then
every cell (study, weighting, seed) trains for the same steps and faces the same starts. Weights:

    bc            every frame alike
    calibrated    RA-BC, calibrated mode, as `robo-rm score` does it by default
    lerobot       RA-BC, the weights of LeRobot's own class for the same progress, looking one action chunk ahead
    paper         RA-BC, equations 5-9 of the paper with its 25 frames and kappa .01
    oracle        calibrated mode on the simulator's true progress: what a perfect reward model would give
    successes     the episodes that succeeded, every frame alike
    top_fraction  the share of the episodes that made most progress, every frame alike

Cells run one per core. Each leaves OUT/<study>/<weighting>_<seed>/cell.json; the same command goes on with those that
are missing, and `--table` prints what there is at any time. `--steps`, where given, replaces the recipe's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cells import check_settings, read_results, robo_rm, run_cells
from contenders.rabc_weights import write_weights
from omegaconf import OmegaConf

from robo_core.cli.commands import find_commands
from robo_core.cli.composed import compose_command
from robo_core.console import print_table, say
from robo_core.errors import StoreError
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_policies.evaluation.comparison import compare
from robo_rm.metrics.intervals import wilson_interval
from robo_rm.weights.options import Calibration

ARMS = ("bc", "calibrated", "lerobot", "paper", "oracle", "successes", "top_fraction")
CHUNK = 20


@dataclass(frozen=True)
class Study:
    """One comparison.

    Attributes:
        env: the environment.
        arms: which weightings are compared.
        horizons: actions of a chunk carried out before the policy looks again; the first is the policy's default.
        recorded: episodes in the store.
        record: further words for record.
        shares: the study whose reward model this one scores with, since its demonstrations look the same.
    """

    env: str
    arms: tuple[str, ...] = ("bc", "calibrated", "oracle")
    horizons: tuple[int, ...] = (5, 10)
    recorded: int = 100
    record: tuple[str, ...] = ()
    shares: str = ""


STUDIES: dict[str, Study] = {
    "tidy_drawer": Study("tidy_drawer", arms=ARMS),
    "drawer_open": Study("metaworld/drawer-open-v3"),
    "pick_place": Study("metaworld/pick-place-v3"),
    "door_open": Study("metaworld/door-open-v3"),
    "tidy_drawer_diffusion": Study("tidy_drawer", horizons=(5,), shares="tidy_drawer"),
    "open_images": Study(
        "tidy_drawer/open", arms=("bc", "calibrated"), record=("environment_state=false",), horizons=(5,)
    ),
}


@dataclass(frozen=True)
class Cell:
    """One training run with its evaluations."""

    study: str
    arm: str
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.study}/{self.arm}_{self.seed}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=STUDIES)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--episodes", type=int, default=100, help="evaluation episodes of each cell and horizon")
    parser.add_argument("--evaluation-seed", type=int, default=2000)
    parser.add_argument("--recorded", type=int, help="episodes in each store, instead of the study's own number")
    parser.add_argument("--processes", type=int, default=0, help="0: one a core, two at most")
    parser.add_argument("--most", type=int, help="stop after so many cells")
    parser.add_argument("--table", action="store_true", help="print what there is and run nothing")
    return parser.parse_args()


def prepare(options: argparse.Namespace, name: str) -> DemoStore:
    """The study's store, recorded and scored; what is there already is left as it is."""
    study, folder = STUDIES[name], options.out / name
    path = folder / "demos.zarr"
    wanted = options.recorded or study.recorded
    if not path.exists() or len(DemoStore.open(path)) < wanted:
        robo_rm(
            None, "record", f"env={study.env}", "quality=mixed", f"episodes={wanted}", f"store={path}", *study.record
        )
    store = DemoStore.open(path)
    try:
        store.derived("progress")
    except StoreError:
        model = options.out / (study.shares or name) / "reward"
        # No bound in time: on a busy machine it would cut the training short, and poor progress makes poor weights.
        if study.shares:
            prepare(options, study.shares)
        else:
            robo_rm(None, "train-reward", f"store={path}", f"out={model}")
        robo_rm(None, "score", f"model={model}", f"store={path}")
        store = DemoStore.open(path)
    return store


def weight_words(store: DemoStore, arm: str) -> tuple[str, ...]:
    """What train-policy is told about the weights."""
    if arm == "bc":
        return ("weights=none",)
    return ("weights=rabc", f"weights.name={write_weights(store, arm, CHUNK)}")


def training_words(options: argparse.Namespace, name: str) -> tuple[str, ...]:
    """The recipe of a study, and its steps where others were asked for."""
    return (f"experiment=rabc_{name}", *([f"steps={options.steps}"] if options.steps else []))


def settings_of(options: argparse.Namespace, name: str, store: DemoStore) -> dict[str, Any]:
    """What the outcome of a cell depends on, beside weighting and seed."""
    recipe = compose_command(find_commands()["train-policy"], training_words(options, name)).config
    return {
        "env": STUDIES[name].env,
        **{key: OmegaConf.to_container(recipe)[key] for key in ("policy", "training", "steps")},
        "episodes": options.episodes,
        "evaluation_seed": options.evaluation_seed,
        "store": store.content_hash(),
        "calibration": asdict(Calibration()),
    }


def run_cell(
    options: argparse.Namespace, cell: Cell, store: DemoStore, words: tuple[str, ...], core: int | None
) -> None:
    study = STUDIES[cell.study]
    settings = settings_of(options, cell.study, store)
    folder = options.out / cell.folder
    robo_rm(
        core,
        *("train-policy", *training_words(options, cell.study), f"store={store.path}", *words),
        *(f"seed={cell.seed}", f"out={folder}/policy", "device=cpu"),
    )
    result: dict[str, Any] = {
        "study": cell.study,
        "arm": cell.arm,
        "seed": cell.seed,
        "settings": settings,
        "training": json.loads((folder / "policy" / "metrics.json").read_text()),
        "horizons": {},
    }
    for horizon in study.horizons:
        out = folder / f"evaluation_{horizon}"
        robo_rm(
            core,
            *("eval-policy", f"policy={folder}/policy", f"env={study.env}", f"episodes={options.episodes}"),
            *(f"seed={options.evaluation_seed}", f"execution.horizon={horizon}", "processes=1", f"out={out}"),
        )
        episodes = json.loads((out / "episodes.json").read_text())["episodes"]
        result["horizons"][str(horizon)] = {
            "metrics": json.loads((out / "metrics.json").read_text()),
            "success": [int(episode["success"]) for episode in episodes],
        }
    write_atomically(folder / "cell.json", json.dumps(result, indent=1))


def read_cells(options: argparse.Namespace) -> dict[Cell, dict[str, Any]]:
    """Finished cells of the studies asked for."""
    found = read_results(options.out, options.studies)
    return {Cell(result["study"], result["arm"], result["seed"]): result for result in found}


def rows_of(cells: dict[Cell, dict[str, Any]], name: str, horizon: int) -> list[dict[str, Any]]:
    """One row per weighting of a study, in the order of ``ARMS``: successes, and the differences to bc and calibrated.

    A difference is taken over the starts and seeds that both have.
    """
    rows = []
    outcomes = {
        arm: {
            cell.seed: result["horizons"][str(horizon)]["success"]
            for cell, result in cells.items()
            if (cell.study, cell.arm) == (name, arm) and str(horizon) in result["horizons"]
        }
        for arm in ARMS
    }
    for arm, by_seed in outcomes.items():
        if not by_seed:
            continue
        pooled = [one for seed in sorted(by_seed) for one in by_seed[seed]]
        rate, low, high = wilson_interval(sum(pooled), len(pooled))
        row: dict[str, Any] = {
            "study": name,
            "horizon": horizon,
            "arm": arm,
            "success": rate,
            "interval": [low, high],
            "seeds": {str(seed): float(np.mean(by_seed[seed])) for seed in sorted(by_seed)},
        }
        for other in ("bc", "calibrated"):
            common = sorted(set(by_seed) & set(outcomes[other]))
            if arm == other or not common:
                continue
            first = [one for seed in common for one in outcomes[other][seed]]
            second = [one for seed in common for one in by_seed[seed]]
            paired = compare([bool(one) for one in first], [bool(one) for one in second])
            row[f"against_{other}"] = {
                "difference": list(paired.difference),
                "p": paired.p_value,
                "verdict": paired.verdict,
                "pairs": paired.pairs,
            }
        rows.append(row)
    return rows


def show(options: argparse.Namespace) -> None:
    """Print a table per study and horizon, and write OUT/table.json."""
    cells = read_cells(options)
    table = []
    for name in options.studies:
        for horizon in STUDIES[name].horizons:
            rows = rows_of(cells, name, horizon)
            table += rows
            if rows:
                body = [
                    (
                        row["arm"],
                        f"{100 * row['success']:.1f}",
                        "{:.1f} to {:.1f}".format(*(100 * end for end in row["interval"])),
                        ", ".join(f"{100 * rate:.0f}" for rate in row["seeds"].values()),
                        _difference(row.get("against_bc")),
                        _difference(row.get("against_calibrated")),
                    )
                    for row in rows
                ]
                columns = ["weights", "success %", "95 % interval", "each seed", "against bc", "against calibrated"]
                print_table(f"{name}, {horizon} of {CHUNK} actions carried out", columns, body)
    if not table:
        say(f"{options.out} holds no finished cell yet")
        return
    write_atomically(options.out / "table.json", json.dumps(table, indent=1))


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    value, low, high = (100 * end for end in found["difference"])
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f}, p {found['p']:.1g})"


def main() -> None:
    options = parse()
    if options.table:
        show(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    # All weightings of a seed before the next seed, so that an interrupted comparison is a fair one.
    wanted = [
        Cell(name, arm, seed)
        for name in options.studies
        for seed in options.seeds
        for arm in STUDIES[name].arms
        if arm in options.arms
    ]
    done = read_cells(options)
    missing = [cell for cell in wanted if cell not in done][: options.most]
    for name in options.studies:
        finished = [result for cell, result in done.items() if cell.study == name]
        left = [cell for cell in missing if cell.study == name]
        if not finished and not left:
            continue
        store = prepare(options, name)
        check_settings(options.out / name, finished, settings_of(options, name, store))
        words = {arm: weight_words(store, arm) for arm in dict.fromkeys(cell.arm for cell in left)}

        def work(cell: Cell, core: int | None, store: DemoStore = store, words: Any = words) -> None:
            run_cell(options, cell, store, words[cell.arm], core)

        run_cells(name, left, len(finished), options.processes, work)
    show(options)


if __name__ == "__main__":
    main()
