"""Evaluate a reward model on episodes it has not seen, failures first, and say what it can be trusted for.

Prints the metrics with intervals and writes metrics.json and report.html: progress over film strips, worst cases first,
stage confusion, ROC. Evaluates on the episodes held out of training that are in the store, and where there are none on
those the model was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import next_command, say_then
from robo_core.console import print_table, say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder
from robo_rm import evaluation as evaluations
from robo_rm import reward_models
from robo_rm.reward_models import stage

GROUP = "reward model"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm eval-reward``."""

    model: str = MISSING
    """Reward model folder, as train-reward wrote it."""
    store: str = MISSING
    """Demo store with stage labels."""
    out: str = MISSING
    """Folder for report.html and metrics.json."""
    head: str | None = None
    """`dense` or `sparse`, of a model that was trained with reward.sparse; the one it was saved with if not given."""
    episodes: str = "unseen"
    """`unseen`: held out or never trained on; `all`: every episode, which flatters the model."""
    probes: int = 36
    """Number of episodes without failure to make probe clips from: paused, turned back, hovering, shuffled, with a
    frozen camera, backwards. 36 without a fault are needed to trust that at most a tenth goes wrong; 0: none."""
    probe_store: str | None = None
    """Store of probe episodes (`robo-rm record-probes`), such as an empty scene."""
    resamples: int = 1000
    """Bootstrap draws of the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""
    device: str = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> None:
    """Evaluate the model and write the report."""
    if config.resamples < 10 or config.probes < 0:
        raise ConfigError(f"resamples={config.resamples} must be at least 10 and probes={config.probes} at least 0")
    store = robo_datasets.DemoStore.open(config.store)
    model = stage.model_with_head(reward_models.load_reward_model(config.model, config.device), config.head)
    evaluation = evaluations.evaluate_reward_model(
        model,
        store,
        which=config.episodes,
        probes=config.probes,
        probe_store=None if config.probe_store is None else robo_datasets.DemoStore.open(config.probe_store),
        resamples=config.resamples,
        seed=config.seed,
    )
    advice = evaluations.advise(evaluation)
    print_table(
        f"Reward model on {evaluation.scope}",
        evaluations.METRIC_COLUMNS,
        evaluations.metric_rows(evaluation),
    )
    missing = evaluations.missing_metrics(evaluation)
    if missing:
        say(f"cannot be computed from these episodes: {missing}")
    if len(evaluation.by_kind) > 1:
        print_table("By kind of episode", evaluations.KIND_COLUMNS, evaluations.kind_rows(evaluation))
    if len(evaluation.by_task) > 1:
        print_table(
            "By task", ("task", *evaluations.KIND_COLUMNS[1:]), evaluations.kind_rows(evaluation, evaluation.by_task)
        )
    if evaluation.by_probe:
        print_table("Probe clips", evaluations.probe_table.COLUMNS, evaluations.probe_table.rows(evaluation))
    if evaluation.probes_left_out:
        say(evaluations.probe_table.left_out(evaluation))
    marks = {"yes": "+", "no": "-", "care": "!", "know": " "}
    for item in advice:
        say(f"{marks[item.mark]} {item.text}")
    out = OutputFolder(config.out, config)
    out.write_metrics(evaluations.advice.flat_metrics(evaluation, advice))
    camera = model.cameras[0] if model.cameras else None
    trusted = not any(item.use == "weighting" and item.mark == "no" for item in advice)
    scoring = next_command("score", model=config.model, head=config.head or "", store=config.store)
    title = f"Reward model {Path(config.model).name}"
    page = out.path("report.html")
    evaluations.write_report(evaluation, advice, store, camera, title, page, scoring if trusted else "")
    out.announce()
    if not trusted:
        say_then(
            f"no weights of this model (see above): {out.path('report.html')} shows where it fails, the worst "
            "episodes first; correct stage labels or add failures, train again, and score with a model that passes"
        )
    else:
        say_then(scoring)
