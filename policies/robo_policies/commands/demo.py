"""Run the whole line on a simulated task and write a report: demonstrations in, a better policy out.

Records demonstrations of uneven quality, trains a stage-aware reward model on their video, judges it on episodes it has
not seen, weighs the demonstrations, clones them with and without the weights, and evaluates both policies. Each part
is a command that you can run on your own data; it is printed before it runs. Interrupt it when you like: the same
command goes on where it stood.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

GROUP = "whole line"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm demo``."""

    out: str = MISSING
    """Folder for everything the demo makes; report.html is the page to open."""
    episodes: int = 100
    """Demonstrations to record and learn from."""
    held_out: int = 40
    """Further demonstrations, recorded only to judge the reward model."""
    reward_steps: int | None = None
    """Training steps of the reward model; null for seven passes over the frames, about 1650 steps with 100 episodes."""
    policy_steps: int = 2000
    """Training steps of each policy."""
    rollouts: int = 100
    """Evaluation episodes of each policy, from the same random starts."""
    image_size: int = 128
    """Height and width of the recorded frames, in pixels."""
    seed: int = 0
    """Seed of everything."""


def run(config: Config) -> None:
    """Run the parts that have not finished, then write the report."""
    from robo_core.console import say
    from robo_core.outputs import OutputFolder
    from robo_policies.demo.estimate import describe_time
    from robo_policies.demo.pipeline import Line
    from robo_policies.demo.report import write_report
    from robo_policies.demo.steps import demo_parts

    out = OutputFolder(config.out, config)
    line = Line(out.folder)
    parts = demo_parts(config, out.folder)
    if told := describe_time(config, line.unfinished(parts)):
        say(told)
    line.run(parts)
    metrics = write_report(out, line.seconds)
    out.write_metrics(metrics | {"seconds": sum(line.seconds.values()), "peak_memory_gib": line.peak_memory_gib})
    say(f"report: {out.path('report.html')}")
