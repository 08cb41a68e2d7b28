"""Run the whole pipeline on a simulated task and write a report: demonstrations in, a better policy out.

Records demonstrations of uneven quality, trains a stage-aware reward model on their video, evaluates it on episodes it
has not seen, weights the demonstrations, clones them with and without the weights, and evaluates both policies. Each
step is a command that you can run on your own data; it is printed before it runs. Interrupt it when you like, and run
the same command again to resume.
"""

from __future__ import annotations

from robo_core.cli.following import say_next
from robo_core.console import say
from robo_core.outputs import OutputFolder
from robo_policies import demo
from robo_policies.demo.settings import Config

GROUP = "whole line"


def run(config: Config) -> None:
    """Run the steps that have not finished, then write the report."""
    out = OutputFolder(config.out, config)
    pipeline = demo.Pipeline(out.folder)
    steps = demo.demo_steps(config, out.folder)
    if estimate := demo.describe_time(config, pipeline.unfinished(steps)):
        say(estimate)
    pipeline.run(steps)
    metrics = demo.write_report(out, pipeline.seconds)
    out.write_metrics(
        metrics | {"seconds": sum(pipeline.seconds.values()), "peak_memory_gib": pipeline.peak_memory_gib}
    )
    say(f"report: {out.path('report.html')}")
    say_next("import lerobot", source="YOUR_DATASET", store="demos.zarr")
