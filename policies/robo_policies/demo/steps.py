"""The commands of the demo, in order: what a user types for the same job on data of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robo_policies.demo.pipeline import Step

if TYPE_CHECKING:
    from robo_policies.demo.settings import Config

ENVIRONMENT = "tidy_drawer"
# Called again with other settings, the demo takes the place of what it trained before; with the same, it goes on.
ANEW = "overwrite=true"
# Recordings for evaluation start from other random numbers than recordings to learn from.
HELD_OUT_SEED_OFFSET = 1000
EVALUATION_SEED_OFFSET = 2000


def demo_steps(config: Config, out: Path) -> list[Step]:
    """Return the parts of the demo for the settings ``config``, writing below ``out``."""
    demos, held_out, model = f"store={out / 'demos.zarr'}", f"store={out / 'held_out.zarr'}", out / "reward_model"
    env, size, seed = f"env={ENVIRONMENT}", f"image_size={config.image_size}", config.seed

    def record(store: str, episodes: int, first: int) -> tuple[str, ...]:
        return ("record", env, store, f"episodes={episodes}", "quality=mixed", f"seed={first}", size)

    def train(weights: str) -> tuple[str, ...]:
        steps = f"steps={config.policy_steps}"
        out_folder = f"out={out / f'policy_{weights}'}"
        return ("train-policy", demos, "policy=act", f"weights={weights}", steps, f"seed={seed}", out_folder, ANEW)

    def evaluate(weights: str) -> Step:
        name = {"none": "cloning everything (BC)", "rabc": "cloning by reward (RA-BC)"}[weights]
        words = ("eval-policy", f"policy={out / f'policy_{weights}'}", env, f"episodes={config.rollouts}")
        first = seed + EVALUATION_SEED_OFFSET
        command = (*words, f"seed={first}", f"out={out / f'evaluation_{weights}'}")
        return Step(f"evaluate_{weights}", f"Evaluate {name}", (command,))

    return [
        Step("record", "Record demonstrations of uneven quality", (record(demos, config.episodes, seed),)),
        Step(
            "record_held_out",
            "Record demonstrations to evaluate the reward model",
            (record(held_out, config.held_out, seed + HELD_OUT_SEED_OFFSET),),
        ),
        Step(
            "train_reward",
            "Train the reward model on the video",
            (
                (
                    *("train-reward", demos, f"out={model}", "holdout=8"),
                    *([f"steps={config.reward_steps}"] if config.reward_steps is not None else []),
                    *(f"seed={seed}", ANEW),
                ),
            ),
        ),
        Step(
            "eval_reward",
            "Evaluate the reward model on demonstrations it has not seen",
            (("eval-reward", f"model={model}", held_out, f"out={out / 'reward_report'}"),),
        ),
        Step(
            "score",
            "Score and weigh the demonstrations",
            (("score", f"model={model}", demos, f"out={out / 'scores'}"),),
        ),
        Step("train_policies", "Clone the demonstrations, with and without weights", (train("none"), train("rabc"))),
        evaluate("none"),
        evaluate("rabc"),
    ]
