"""How fast are environment steps with the learned reward in the loop, and how much memory does learning take?

    python benchmarks/rl_speed.py --model REWARD_MODEL [--env tidy_drawer] [--repeat 5] [--envs 16] [--processes 2]
        [--rounds 5] [--seconds 4] [--memory 1000000] [--out DIR]

Speed: control steps per second of
    bare          physics, and rendering of the images that the reward model reads, once per macro-action
    scored        the same steps and images through `MacroActionVectorEnv`, scored by the reward model in batches
each in this process alone and, with --processes, with so many environments stepped at the same time in processes of
their own (bare: in so many processes). Bare and scored take turns, so that both see the same machine; the ratio is the
median over the rounds.

Memory: the peak of a process that holds a learner and a replay buffer filled with --memory transitions, has updated
from it and has written a checkpoint.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robo_core.console import print_table, progress_bar
from robo_core.outputs import write_atomically
from robo_policies import make_env
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.envs.macro_action import ActionMap, action_map, camera_name
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv, make_vector_env
from robo_policies.rl.settings import SacSettings
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_rm import load_reward_model
from robo_rm.shaping.modes import ShapingSettings
from robo_rm.shaping.potential import VideoPotential

REACH = 0.1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the reward model")
    parser.add_argument("--env", default="tidy_drawer")
    parser.add_argument("--repeat", type=int, default=5, help="control steps in a macro-action")
    parser.add_argument("--envs", type=int, default=16, help="environments scored in one batch")
    parser.add_argument(
        "--processes", type=int, default=2, help="environments stepped at the same time; 0 leaves that part out"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--memory", type=int, default=1_000_000, help="transitions; 0 leaves that part out")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def actions_of(env: Any, repeat: int) -> ActionMap:
    """How a random policy moves: as the learner's actions do."""
    absolute = env.unwrapped.absolute_actions
    reach = None
    if absolute is not None:
        reach = np.full(env.action_space.shape, REACH)
        reach[list(absolute)] = np.inf
    return action_map(env.action_space, repeat, None if reach is None else reach.tolist())


def bare_rate(options: argparse.Namespace, cameras: tuple[str, ...], count: int) -> float:
    """Control steps per second of physics and rendering alone, ``count`` environments in turn."""
    envs = [make_env(options.env) for _ in range(count)]
    mapping = actions_of(envs[0], options.repeat)
    rng = np.random.default_rng(0)
    observations = [env.reset(seed=seed)[0] for seed, env in enumerate(envs)]
    for env in envs:
        env.render_cameras(cameras)
    steps, started = 0, time.monotonic()
    while time.monotonic() - started < options.seconds:
        for index, env in enumerate(envs):
            action = rng.uniform(-1, 1, len(mapping.low)).astype(np.float32)
            for command in mapping.commands(observations[index]["observation.state"], action):
                observations[index], _, terminated, truncated, _ = env.step(command)
                steps += 1
                if terminated or truncated:
                    observations[index], _ = env.reset()
                    break
            env.render_cameras(cameras)
    rate = steps / (time.monotonic() - started)
    for env in envs:
        env.close()
    return rate


def bare_rate_in_processes(options: argparse.Namespace) -> float:
    """The sum over processes that each run `bare_rate` on their part of the environments."""
    words = [sys.executable, __file__, "--bare", "--model", str(options.model), "--env", options.env]
    words += ["--repeat", str(options.repeat), "--seconds", str(options.seconds)]
    words += ["--envs", str(options.envs // options.processes)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(options.processes)]
    return sum(float(one.communicate()[0].strip().splitlines()[-1]) for one in running)


def make_halves(options: argparse.Namespace, model: Any, processes: int) -> list[MacroActionVectorEnv]:
    """All environments as one vector, or, in other processes, as two of half as many."""
    env = make_env(options.env)
    mapping = actions_of(env, options.repeat)
    env.close()
    counts = [options.envs - options.envs // 2, options.envs // 2] if processes and options.envs > 1 else [options.envs]
    halves = []
    for index, count in enumerate(counts):
        potential = VideoPotential(model, count, options.repeat)
        make = functools.partial(make_env, options.env)
        envs = make_vector_env(make, count, mapping, potential, min(processes, count))
        halves.append(MacroActionVectorEnv(envs, mapping, potential, 0.99, 1000 * index))
    return halves


def scored_rate(options: argparse.Namespace, halves: list[MacroActionVectorEnv]) -> float:
    """Control steps per second with the reward model in the loop."""
    rng = np.random.default_rng(0)

    def start(envs: MacroActionVectorEnv) -> None:
        envs.step_async(rng.uniform(-1, 1, (envs.num_envs, envs.action_size)).astype(np.float32))

    for envs in halves:
        envs.reset()
        start(envs)
    steps, began = 0, time.monotonic()
    while time.monotonic() - began < options.seconds:
        # While one half is scored, other processes step the other half.
        for envs in halves:
            steps += int(envs.step_wait().transitions["steps"].sum())
            start(envs)
    rate = steps / (time.monotonic() - began)
    for envs in halves:
        envs.step_wait()
    return rate


def measure_speed(options: argparse.Namespace) -> dict[str, float]:
    """Medians of bare and scored rates and of their ratio, here and in worker processes."""
    model = load_reward_model(str(options.model), "cpu")
    cameras = tuple(camera_name(key) for key in model.cameras)
    local = make_halves(options, model, 0)
    remote = make_halves(options, model, options.processes) if options.processes else []
    found: dict[str, list[tuple[float, float]]] = {"here": []}
    with progress_bar("speed", total=options.rounds, unit="rounds") as bar:
        for _ in range(options.rounds):
            found["here"].append((bare_rate(options, cameras, options.envs), scored_rate(options, local)))
            if remote:
                rates = (bare_rate_in_processes(options), scored_rate(options, remote))
                found.setdefault("workers", []).append(rates)
            bar.advance(1)
    for envs in (*local, *remote):
        envs.close()
    figures = {}
    for name, pairs in found.items():
        figures[f"{name}_bare"] = float(np.median([bare for bare, _ in pairs]))
        figures[f"{name}_scored"] = float(np.median([scored for _, scored in pairs]))
        figures[f"{name}_ratio"] = float(np.median([scored / bare for bare, scored in pairs]))
    return figures


def fill(options: argparse.Namespace) -> None:
    """Fill a replay buffer, update from it, write a checkpoint, and print the peak of this process's memory, in GB."""
    env = make_env(options.env)
    space = env.observation_space.spaces
    size = sum(int(np.prod(space[key].shape)) for key in ("observation.state", "observation.environment_state"))
    width = len(env.action_space.low)
    load_reward_model(str(options.model), "cpu")
    replay = ReplayBuffer(options.memory, size, width, "filled")
    sac = Sac(size + 1, width, SacSettings(), 0)
    rng = np.random.default_rng(0)
    block = 10_000
    shapes = {"observation": (size,), "next_observation": (size,), "action": (width,), "next_prior_action": (width,)}
    for _ in range(0, options.memory, block):
        rows: dict[str, Any] = {
            name: rng.uniform(-1, 1, (block, *shape)).astype(np.float32) for name, shape in shapes.items()
        }
        rows |= {name: rng.random(block) for name in ("task_reward", "potential", "next_potential", "start_potential")}
        rows |= {"terminated": np.zeros(block, bool), "truncated": np.zeros(block, bool), "steps": np.full(block, 5)}
        rows["episode"] = np.arange(replay.size, replay.size + block) // 20
        replay.add(rows, "filled")
    for _ in range(20):
        sac.update(replay.sample(rng, 256, ShapingSettings("pbrs"), 0.99), None)
    with tempfile.TemporaryDirectory() as folder:
        replay.save(Path(folder) / "replay.safetensors")
    print(f"{len(replay)} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.3f}")


def measure_memory(options: argparse.Namespace) -> dict[str, float]:
    """Transitions stored and GB at the peak, of a process of its own."""
    words = [sys.executable, __file__, "--fill", "--model", str(options.model), "--env", options.env]
    words += ["--memory", str(options.memory)]
    stored, peak = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return {"stored_transitions": float(stored), "peak_gb": float(peak)}


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.fill:
        fill(options)
        return
    if options.bare:
        cameras = tuple(camera_name(key) for key in load_reward_model(str(options.model), "cpu").cameras)
        print(bare_rate(options, cameras, options.envs))
        return
    figures = {"envs": float(options.envs), "processes": float(options.processes), "repeat": float(options.repeat)}
    figures |= measure_speed(options)
    if options.memory:
        figures |= measure_memory(options)
    print_table(f"{options.env}, control steps per second", ["metric", "value"], [[k, v] for k, v in figures.items()])
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out / "speed.json", json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
