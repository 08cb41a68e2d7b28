"""Measure how often a policy succeeds, from many seeded starts, with a 95 % interval and where failures stopped.

Starts depend on `seed` and the number of the episode alone, so every policy faces the same ones. With `baseline=OTHER`
both are run and compared start by start: the difference with its interval, and McNemar's exact test of whether it is
one. Runs on all cores, two at most. Writes a page with pictures, report.html, and films of the best and worst episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from robo_policies.cloning.settings import Execution

GROUP = "policies"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm eval-policy``."""

    policy: str = MISSING
    """Folder of the policy, as train-policy, train-rl or LeRobot wrote it."""
    baseline: str | None = None
    """Folder of another policy to compare it with on the same starts."""
    env: str = "tidy_drawer"
    """World to evaluate in: tidy_drawer, metaworld/<task> or gym/<id>."""
    episodes: int = 100
    """How many episodes."""
    out: str = MISSING
    """Folder for report.html, metrics.json, episodes.json and videos."""
    seed: int = 0
    """Names the starts."""
    execution: Execution = field(default_factory=Execution)
    """How chunks are carried out: execution.horizon=..., or execution.ensemble=0.01."""
    processes: int | None = None
    """Worker processes; null for one per core, two at most."""
    videos: int = 0
    """Film so many of the best episodes and of the worst; they are run once more for it."""
    device: str = "cpu"
    """Where a single process runs the network; worker processes use the cpu."""


def run(config: Config) -> None:
    """Evaluate, print the table, write the figures."""
    from pathlib import Path

    from robo_datasets.console import print_table, say
    from robo_datasets.errors import ConfigError
    from robo_datasets.outputs import OutputFolder
    from robo_policies.cloning.learned import load_policy
    from robo_policies.evaluation.comparison import compare
    from robo_policies.evaluation.evaluate import check_request, evaluate
    from robo_policies.evaluation.report import figure_rows, pair_rows, verdict, write_report

    if not config.out:
        raise ConfigError("out is empty; give the folder to write to, for example out=eval")
    folders = [config.policy] if config.baseline is None else [config.baseline, config.policy]
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise ConfigError(f"baseline={config.baseline} is the policy itself; give another one to compare with")
    policies = {name: load_policy(folder, config.device) for name, folder in zip(_names(folders), folders, strict=True)}
    for policy in policies.values():
        check_request(policy, config.env, config.episodes, config.seed, config.execution, config.videos)
    out = OutputFolder(config.out, config)
    results = {}
    for name, policy in policies.items():
        results[name] = evaluate(
            policy,
            config.env,
            config.episodes,
            config.seed,
            config.execution,
            config.processes,
            config.videos,
            out.path("videos") if len(policies) == 1 else out.path(f"videos/{name}"),
            title="evaluate" if len(policies) == 1 else f"evaluate {name}",
        )
    judged = results[list(results)[-1]]
    metrics = _metrics(judged)
    print_table(f"{' and '.join(results)} in {config.env}", ["figure", *results], figure_rows(results))
    comparison = None
    if config.baseline is not None:
        first, second = results.values()
        comparison = compare([one.success for one in first.rollouts], [one.success for one in second.rollouts])
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
        print_table("pairs", columns, pair_rows(comparison, first_name))
        say(verdict(comparison, first_name, second_name)[1])
    out.write_metrics(metrics)
    _write_episodes(out, results)
    write_report(out.folder, config.env, results, comparison)
    out.announce()


def _names(folders: list[str]) -> list[str]:
    """What tells the folders apart: their last parts, as many as it takes."""
    from pathlib import Path

    parts = [Path(folder).resolve().parts for folder in folders]
    for count in range(1, max(len(one) for one in parts) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders)


def _metrics(result: Any) -> dict[str, Any]:
    stopped = {f"stopped_at_{number}": count for number, count in enumerate(result.stopped_at().values())}
    metrics: dict[str, Any] = result.metrics() | stopped
    return metrics


def _write_episodes(out: Any, results: Any) -> None:
    """The rollouts of the judged policy in episodes.json, of the baseline in baseline_episodes.json."""
    import json

    from robo_datasets.outputs import write_atomically

    names = ["baseline_episodes.json", "episodes.json"][-len(results) :]
    for name, result in zip(names, results.values(), strict=True):
        rollouts = [rollout.as_dict() for rollout in result.rollouts]
        text = json.dumps({"stages": list(result.stages), "episodes": rollouts}, indent=1)
        write_atomically(out.path(name), text)
