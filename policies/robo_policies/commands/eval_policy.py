"""Measure how often a policy succeeds, from many seeded starts, with a 95 % interval and where failures stopped.

Starts depend on `seed` and the number of the episode alone, so every policy faces the same ones. With `baseline=OTHER`
both are run and compared start by start: the difference with its interval, and McNemar's exact test of whether it is
one. Uses up to two processes. Writes a page with plots, report.html, and videos of the best and worst episodes.

`steering.reward=FILE.py:FUNCTION` steers a diffusion policy while it acts; with `baseline=` the same folder it is
compared with itself unsteered. `contract=` refuses a policy that was trained under another robot contract.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from robo_core.cli.following import next_command, saved_setting, say_then
from robo_core.console import print_table, say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder, write_atomically
from robo_policies import cloning, evaluation
from robo_policies.cloning.settings import Execution
from robo_policies.cloning.steering_settings import SteeringSettings

if TYPE_CHECKING:
    from robo_core.outputs import OutputFolder
    from robo_policies.evaluation.results import Evaluation

GROUP = "policies"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm eval-policy``."""

    policy: str = MISSING
    """Folder of the policy, as train-policy, train-rl or LeRobot wrote it."""
    baseline: str | None = None
    """Folder of another policy to compare it with on the same starts."""
    env: str = "tidy_drawer"
    """Environment to evaluate in: tidy_drawer, metaworld/<task> or gym/<id>."""
    episodes: int = 100
    """Number of episodes."""
    out: str = MISSING
    """Folder for report.html, metrics.json, episodes.json and videos."""
    seed: int = 0
    """Seed of the starts."""
    execution: Execution = field(default_factory=Execution)
    """How chunks are executed: execution.horizon=..., or execution.ensemble=0.01."""
    steering: SteeringSettings = field(default_factory=SteeringSettings)
    """What steers the policy (not the baseline) while it acts; diffusion policies only."""
    contract: str = ""
    """Robot contract of the arm in the environment, a file or a packaged name; refuses a policy of another."""
    processes: int | None = None
    """Worker processes; null for up to two, one per core."""
    videos: int = 0
    """Write videos of so many of the best and of the worst episodes; these are run once more."""
    device: str = "cpu"
    """Where a single process runs the network; worker processes use the cpu."""


def run(config: Config) -> None:
    """Evaluate, print the table, write the metrics."""
    if not config.out:
        raise ConfigError("out is empty; give the folder to write to, for example out=eval")
    folders = [config.policy] if config.baseline is None else [config.baseline, config.policy]
    if config.steering.reward is None and len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise ConfigError(f"baseline={config.baseline} is the policy itself; give another one to compare with")
    names = _names(folders)
    if config.steering.reward is not None:
        names[-1] += ", steered"
    policies = {name: cloning.load_policy(folder, config.device) for name, folder in zip(names, folders, strict=True)}
    steering = {name: SteeringSettings() for name in names} | {names[-1]: config.steering}
    for name, policy in policies.items():
        unknown = cloning.check_policy_contract(policy, config.contract) if config.contract else None
        if unknown:
            say(f"warning: {unknown}")
        evaluation.check_request(
            policy, config.env, config.episodes, config.seed, config.execution, config.videos, steering[name]
        )
    out = OutputFolder(config.out, config)
    results = {}
    for name, policy in policies.items():
        results[name] = evaluation.evaluate.evaluate(
            policy,
            config.env,
            config.episodes,
            config.seed,
            config.execution,
            config.processes,
            config.videos,
            out.path("videos") if len(policies) == 1 else out.path(f"videos/{name.replace(', ', '_')}"),
            title="evaluate" if len(policies) == 1 else f"evaluate {name}",
            steering=steering[name],
        )
    evaluated = results[list(results)[-1]]
    metrics = _metrics(evaluated)
    print_table(f"{' and '.join(results)} in {config.env}", ["metric", *results], evaluation.metric_rows(results))
    comparison = None
    if config.baseline is not None:
        first, second = results.values()
        comparison = evaluation.compare(
            [one.success for one in first.rollouts], [one.success for one in second.rollouts]
        )
        metrics |= {f"baseline/{key}": value for key, value in _metrics(first).items()}
        metrics |= {
            "difference": comparison.difference.value,
            "difference_low": comparison.difference.low,
            "difference_high": comparison.difference.high,
            "mcnemar_p": comparison.p_value,
            "only_policy": comparison.only_second,
            "only_baseline": comparison.only_first,
        }
        first_name, second_name = results
        columns = ["starts on which", f"{second_name} succeeds", f"{second_name} fails"]
        print_table("pairs", columns, evaluation.pair_rows(comparison, first_name))
        say(evaluation.verdict(comparison, first_name, second_name)[1])
    out.write_metrics(metrics)
    _write_episodes(out, results)
    store = saved_setting(config.policy, "store") or "STORE.zarr"
    contract = config.contract or "YOUR_ROBOT.yaml"
    following = next_command("deploy-check", policy=config.policy, store=store, contract=contract)
    evaluation.write_report(out.folder, config.env, results, comparison, following)
    out.announce()
    say_then(following)


def _names(folders: list[str]) -> list[str]:
    """Distinct names of the folders: their last parts, as many as it takes."""
    parts = [Path(folder).resolve().parts for folder in folders]
    for count in range(1, max(len(one) for one in parts) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders) if folders[0] != folders[-1] else [parts[0][-1]] * len(folders)


def _metrics(result: Evaluation) -> dict[str, float | None]:
    stopped = {f"stopped_at_{number}": count for number, count in enumerate(result.stopped_at().values())}
    return {**result.metrics(), **stopped}


def _write_episodes(out: OutputFolder, results: Mapping[str, Evaluation]) -> None:
    """The rollouts of the evaluated policy in episodes.json, of the baseline in baseline_episodes.json."""
    names = ["baseline_episodes.json", "episodes.json"][-len(results) :]
    for name, result in zip(names, results.values(), strict=True):
        rollouts = [rollout.as_dict() for rollout in result.rollouts]
        text = json.dumps({"stages": list(result.stages), "episodes": rollouts}, indent=1)
        write_atomically(out.path(name), text)
