"""The tidy-drawer environment: what each quality of demonstration comes to, and how fast it runs.

    python benchmarks/tidy_drawer.py [--clean 300] [--others 60] [--skip-speed] [--json tidy_drawer_benchmark.json]

Success and lengths: one demonstration a seed, seeds from 0, no images. Speed: processor time of one core for the
actions of a clean demonstration carried out again, so contacts are as in use; then the same with two cameras in both
presets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robo_core.console import print_table, progress_bar, say
from robo_core.outputs import write_atomically
from robo_policies import make_env
from robo_policies.envs import demonstrate
from robo_policies.envs.demonstrations import QUALITIES
from robo_policies.recording.recorder import LONGEST
from robo_rm.metrics.intervals import wilson_interval

IMAGE_SIZES = (84, 128, 240)
REPETITIONS = 10


def judge(quality: str, count: int, bar: Any) -> dict[str, Any]:
    """Successes, lengths and the deepest fall of progress of ``count`` demonstrations."""
    env = make_env("tidy_drawer", max_steps=LONGEST)
    successes, lengths, falls, final = 0, [], [], []
    for seed in range(count):
        _, info = env.reset(seed=seed)
        progress = [info["progress"]]
        for action in demonstrate(env, quality, np.random.default_rng([seed, 7])):
            _, _, terminated, truncated, info = env.step(action)
            progress.append(info["progress"])
            if terminated or truncated:
                break
        successes += info["success"]
        lengths.append(len(progress) - 1)
        falls.append(float(np.max(np.maximum.accumulate(progress) - progress)))
        final.append(progress[-1])
        bar.advance(1, note=quality)
    _, low, high = wilson_interval(successes, count)
    return {
        "demonstrations": count,
        "successes": successes,
        "success": successes / count,
        "success_low": low,
        "success_high": high,
        "mean_steps": float(np.mean(lengths)),
        "shortest": min(lengths),
        "longest": max(lengths),
        "mean_final_progress": float(np.mean(final)),
        "median_fall_of_progress": float(np.median(falls)),
    }


def record_actions() -> list[np.ndarray]:
    env = make_env("tidy_drawer")
    env.reset(seed=0)
    actions = []
    for action in demonstrate(env, "clean", np.random.default_rng(0)):
        actions.append(action)
        if env.step(action)[2]:
            break
    return actions


def seconds_per_step(actions: Sequence[np.ndarray], repetitions: int, **settings: Any) -> float:
    env = make_env("tidy_drawer", **settings)
    env.reset(seed=0)
    env.step(actions[0])  # the GL context is made with the first picture
    started = time.process_time()
    for _ in range(repetitions):
        env.reset(seed=0)
        for action in actions:
            env.step(action)
    taken = time.process_time() - started
    env.close()
    return taken / (repetitions * len(actions))


def measure_speed() -> dict[str, float]:
    """Control steps/s without images, and with two cameras at each size and preset; rendered frames/s."""
    actions = record_actions()
    bare = seconds_per_step(actions, REPETITIONS)
    figures = {"steps_per_second": 1 / bare}
    for preset, share in (("fast", 1.0), ("default", 0.1)):
        part = actions[: int(len(actions) * share)]
        for size in IMAGE_SIZES:
            seeing = seconds_per_step(part, 1, render=preset, image_size=size, cameras=("front", "wrist"))
            figures[f"{preset}/{size}/steps_per_second"] = 1 / seeing
            figures[f"{preset}/{size}/frames_per_second"] = 2 / (seeing - bare)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=int, default=300)
    parser.add_argument("--others", type=int, default=60)
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("tidy_drawer_benchmark.json"))
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    counts = {quality: arguments.clean if quality == "clean" else arguments.others for quality in QUALITIES}
    with progress_bar("demonstrate", sum(counts.values()), "episodes") as bar:
        for quality, count in counts.items():
            results[quality] = judge(quality, count, bar)
    keys = ("successes", "demonstrations", "mean_steps", "shortest", "longest", "mean_final_progress")
    rows = [[quality, *(results[quality][key] for key in (*keys, "median_fall_of_progress"))] for quality in QUALITIES]
    print_table(
        "demonstrations", ["quality", "succeed", "of", "mean steps", "shortest", "longest", "progress", "fall"], rows
    )
    if not arguments.skip_speed:
        results["speed"] = measure_speed()
        print_table(
            "speed, one core", ["what", "per second"], [[key, value] for key, value in results["speed"].items()]
        )
    write_atomically(arguments.json, json.dumps(results, indent=1) + "\n")
    say(f"wrote {arguments.json}")


if __name__ == "__main__":
    main()
