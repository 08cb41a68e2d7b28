"""Measure how often a policy succeeds, from many seeded starts, with a 95 % interval and where failures stopped.

Starts depend on `seed` and the number of the episode alone, so two policies evaluated with the same `seed` and
`episodes` face the same starts. Runs on all cores, two at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from robo_policies.cloning.settings import Execution

GROUP = "policies"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm eval-policy``."""

    policy: str = MISSING
    """Folder of the policy, as train-policy or LeRobot wrote it."""
    env: str = "tidy_drawer"
    """World to evaluate in."""
    episodes: int = 100
    """How many episodes."""
    out: str = MISSING
    """Folder for metrics.json, episodes.json and videos."""
    seed: int = 0
    """Names the starts."""
    execution: Execution = field(default_factory=Execution)
    """How chunks are carried out: execution.horizon=..., or execution.ensemble=0.01."""
    processes: int | None = None
    """Worker processes; null for one per core, two at most."""
    videos: int = 0
    """Film the first so many episodes."""
    device: str = "cpu"
    """Where a single process runs the network; worker processes use the cpu."""


def run(config: Config) -> None:
    """Evaluate, print the table, write the figures."""
    import json

    from robo_datasets.console import print_table
    from robo_datasets.errors import ConfigError
    from robo_datasets.outputs import OutputFolder, write_atomically
    from robo_policies.cloning.learned import load_policy
    from robo_policies.evaluation.evaluate import check_request, evaluate

    if not config.out:
        raise ConfigError("out is empty; give the folder to write to, for example out=eval")
    policy = load_policy(config.policy, config.device)
    check_request(policy, config.env, config.episodes, config.seed, config.execution, config.videos)
    out = OutputFolder(config.out, config)
    result = evaluate(
        policy,
        config.env,
        config.episodes,
        config.seed,
        config.execution,
        config.processes,
        config.videos,
        out.path("videos"),
    )
    stopped = {f"stopped_at_{number}": count for number, count in enumerate(result.stopped_at().values())}
    out.write_metrics(result.metrics() | stopped)
    rollouts = [rollout.as_dict() for rollout in result.rollouts]
    write_atomically(out.path("episodes.json"), json.dumps({"stages": result.stages, "episodes": rollouts}, indent=1))
    print_table(f"{config.policy} in {config.env}", ["figure", "value"], result.rows())
    out.announce()
