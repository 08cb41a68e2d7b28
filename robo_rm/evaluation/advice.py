"""From metrics to plain advice: may the model weight demonstrations, shape a reward, declare success, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robo_rm.evaluation.evaluate import Evaluation
from robo_rm.evaluation.flat_metrics import FROM_CLIPS
from robo_rm.evaluation.support import needed_for
from robo_rm.labels.outcomes import HOW_TO_MARK
from robo_rm.metrics import Interval, stage_confusion

FEW_EPISODES = 10
FEW_FAILURES = 5


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is, for people; `robo_rm.evaluation.support` says what it is based on."""

    meaning: str
    better: str
    """``low`` or ``high``."""


# In the order in which they are shown: failures first, because that is where models flatter themselves.
METRICS: dict[str, MetricInfo] = {
    "auroc": MetricInfo("chance that a success ends at higher progress than a failure", "high"),
    "auroc_max": MetricInfo("the same by the highest progress", "high"),
    "fpr_at_recall": MetricInfo(
        "failures that pass a threshold which 95 % of successes pass; it is chosen on the successes alone", "low"
    ),
    "recall_at_threshold": MetricInfo(
        "successes that pass such a threshold when it is chosen on the other successes", "high"
    ),
    "hallucination": MetricInfo("frames of failures whose predicted stage is beyond the true one", "low"),
    "hallucination_probes": MetricInfo(
        "frames of probe clips (paused, turned back, hovering, ...) whose predicted stage is beyond the true one", "low"
    ),
    "stage_accuracy_failures": MetricInfo("frames of failures with the right stage", "high"),
    "rho": MetricInfo("rollouts called success, partial or fail: (right - wrong) / n", "high"),
    "kendall_tau": MetricInfo("final progress against the simulator's, tau-b", "high"),
    "grade_tau": MetricInfo("final progress against how people graded the episodes, tau-b", "high"),
    "epic": MetricInfo("distance to the simulator's progress as a reward, EPIC", "low"),
    "mse": MetricInfo("mean squared error of progress, on episodes that did not fail", "low"),
    "mae": MetricInfo("mean absolute error of progress", "low"),
    "voc": MetricInfo("rank correlation of progress with time", "high"),
    "voc_reversed": MetricInfo("the same on video played backwards: below 0 if it looks at the image", "low"),
    "stage_accuracy": MetricInfo("frames with the right stage", "high"),
    "boundary_f1": MetricInfo("stage changes found within 0.5 s", "high"),
    "ece_stage": MetricInfo("gap between how sure it is of the stage and how often it is right", "low"),
    "ece_success": MetricInfo("the same for final progress read as a chance of success", "low"),
}

# What each use asks of the model. A use is trusted when the worse end of every metric's interval keeps its bound; so
# many episodes are needed for that, see `needed_for`, and with fewer it is not known.
USES: dict[str, tuple[str, dict[str, float]]] = {
    "weighting": ("weighting demonstrations for cloning", {"voc": 0.90, "hallucination": 0.20}),
    "shaping": (
        "shaping a reward",
        {
            "voc": 0.95,
            "stage_accuracy": 0.80,
            "hallucination": 0.10,
            "hallucination_probes": 0.10,
            "auroc": 0.90,
            "voc_reversed": 0.0,
        },
    ),
    "stopping": (
        "declaring success or stopping a robot",
        {"auroc": 0.95, "fpr_at_recall": 0.10, "hallucination_probes": 0.10},
    ),
}


@dataclass(frozen=True)
class Advice:
    """One piece of advice: ``mark`` is yes, care, no or know."""

    mark: str
    text: str
    use: str = ""
    """Key of the use it is about, where it is about one."""


def advise(evaluation: Evaluation) -> list[Advice]:
    """Advice for each use, then what limits the evaluation, then the weakest stage."""
    advice = [_about(use, words, bounds, evaluation) for use, (words, bounds) in USES.items()]
    return advice + _limits(evaluation) + _weakest_stage(evaluation)


def _about(use: str, words: str, bounds: dict[str, float], evaluation: Evaluation) -> Advice:
    trusted, broken, shaky, unknown = [], [], [], []
    support = evaluation.support
    for name, bound in bounds.items():
        metric, basis = evaluation.metrics[name], support[name]
        wanted = f"wanted at {'least' if METRICS[name].better == 'high' else 'most'} {bound:g}"
        summary = f"{name} is {short(metric.value)} ({wanted})"
        needed = needed_for(name, bound)
        end = _worse_end(name, metric)
        if math.isnan(metric.value):
            unknown.append(f"{name}, {wanted}, cannot be computed: {why_missing(name, evaluation)}")
        elif not _keeps(name, metric.value, bound):
            span = "" if math.isnan(metric.low) else f", {short(metric.low)} to {short(metric.high)}"
            broken.append(f"{summary}{span}, by {basis}")
        elif math.isnan(end):
            unknown.append(f"{summary}, but without an interval: {basis}, {needed} needed")
        elif _keeps(name, end, bound):
            trusted.append(summary)
        elif basis.fewest < needed:
            unknown.append(
                f"{summary}, but may be {short(end)} with other episodes: {basis}, {needed} needed"
                f"{_how_to_get(name, needed)}"
            )
        else:
            shaky.append(f"{summary}, but may be {short(end)} with other episodes")
    if broken:
        return Advice("no", f"Do not trust it for {words}: {'; '.join(broken)}.", use)
    if unknown:
        return Advice("care", f"Whether to trust it for {words} is not known: {'; '.join(unknown + shaky)}.", use)
    if shaky:
        return Advice("care", f"Trust it for {words} with care: {'; '.join(shaky)}.", use)
    return Advice("yes", f"Trust it for {words}: {'; '.join(trusted)}.", use)


def _keeps(name: str, value: float, bound: float) -> bool:
    return value >= bound if METRICS[name].better == "high" else value <= bound


def _worse_end(name: str, metric: Interval) -> float:
    return metric.low if METRICS[name].better == "high" else metric.high


def _how_to_get(name: str, needed: int) -> str:
    if name in FROM_CLIPS:
        return f" (probes={needed}, or a probe_store= of so many)"
    return " of each" if name.startswith("auroc") else ""


def why_missing(name: str, evaluation: Evaluation) -> str:
    """Why a metric cannot be computed from the evaluated episodes."""
    reason = evaluation.support[name].why_missing
    return reason or f"the model says the same, or the truth is the same, throughout the {evaluation.support[name]}"


def _limits(evaluation: Evaluation) -> list[Advice]:
    found = []
    failures, total = len(evaluation.failures), len(evaluation.episodes)
    if evaluation.overlaps_training:
        found.append(
            Advice("care", "It knows some of these episodes, from training or calibration: the metrics flatter it.")
        )
    if total < FEW_EPISODES:
        found.append(Advice("care", f"Only {total} episode(s) were evaluated: the intervals are wide or missing."))
    unknown = sum(episode.success is None for episode in evaluation.episodes)
    if unknown:
        found.append(
            Advice(
                "care",
                f"Whether {unknown} of the {total} evaluated episodes succeeded is unknown: they count among "
                f"those that did not fail, and say nothing of outcomes; {HOW_TO_MARK}.",
            )
        )
    if not failures:
        found.append(
            Advice(
                "care",
                "No evaluated episode is marked as a failure. Most models fail on failures: record or mark some before "
                "you rely on it.",
            )
        )
    elif failures < FEW_FAILURES:
        found.append(Advice("care", f"Only {failures} failure(s) were evaluated: the failure side is hardly known."))
    return found


def _weakest_stage(evaluation: Evaluation) -> list[Advice]:
    counts = confusion(evaluation)
    total = counts.sum(axis=1)
    labelled = np.flatnonzero(total)
    if len(labelled) < 2:
        return []
    accuracy = np.diag(counts)[labelled] / total[labelled]
    worst = int(labelled[int(accuracy.argmin())])
    fraction = counts[worst] / total[worst]
    if fraction[worst] > 0.95:
        return []
    other = int(np.where(np.arange(len(fraction)) == worst, -1, fraction).argmax())
    return [
        Advice(
            "know",
            f"Its weakest stage is '{evaluation.stages[worst]}': right in {fraction[worst]:.0%} of its "
            f"frames, most often taken for '{evaluation.stages[other]}' ({fraction[other]:.0%}).",
        )
    ]


def confusion(evaluation: Evaluation) -> np.ndarray:
    """Frames by true and predicted stage over all evaluated episodes, (K, K)."""
    counts = [stage_confusion(e.prediction.stage, e.stage, len(evaluation.stages)) for e in evaluation.episodes]
    return np.asarray(np.sum(counts, axis=0))


def flat_metrics(evaluation: Evaluation, advice: list[Advice]) -> dict[str, float | int | str]:
    """Everything under the stable keys of docs/evaluating.md."""
    flat: dict[str, float | int | str] = {}
    for name, metric in evaluation.metrics.items():
        flat[name], flat[f"{name}_low"], flat[f"{name}_high"] = metric
    flat |= {
        "episodes": len(evaluation.episodes),
        "successes": sum(episode.success is True for episode in evaluation.episodes),
        "failures": len(evaluation.failures),
        "frames": sum(len(episode.stage) for episode in evaluation.episodes),
        "voc_undefined": sum(
            not episode.failed and float(np.ptp(episode.prediction.progress)) == 0 for episode in evaluation.episodes
        ),
        "frames_per_second": evaluation.speed.frames_per_second,
        "stream_ms": evaluation.speed.stream_ms,
        "encodes_per_step": evaluation.speed.encodes_per_step,
    }
    support = evaluation.support
    flat |= {f"{name}_episodes": support[name].episodes for name in METRICS}
    flat |= {f"trust_{item.use}": item.mark for item in advice if item.use}
    if len(evaluation.by_task) > 1:
        for task, row in evaluation.by_task.items():
            flat |= {f"by_task.{task.replace(' ', '_')}.{name}": value for name, value in row.items()}
    for kind, row in evaluation.by_probe.items():
        flat |= {f"by_probe.{kind.replace(' ', '_')}.{name}": value for name, value in row.items()}
    for kind, row in evaluation.by_kind.items():
        flat |= {f"by_kind.{kind.replace(' ', '_')}.{name}": value for name, value in row.items()}
    return flat


METRIC_COLUMNS = ("metric", "value", "95 % interval", "over", "what it is")


def metric_rows(evaluation: Evaluation) -> list[list[str]]:
    """`METRIC_COLUMNS` of the metrics that there are, in the order of `METRICS`."""
    rows = []
    support = evaluation.support
    for name, about in METRICS.items():
        metric = evaluation.metrics[name]
        if math.isfinite(metric.value):
            span = "too few" if math.isnan(metric.low) else f"{short(metric.low)} to {short(metric.high)}"
            rows.append([name, short(metric.value), span, str(support[name]), about.meaning])
    return rows


def missing_metrics(evaluation: Evaluation) -> str:
    """Which metrics these episodes cannot support, and why; empty where there is none."""
    reasons: dict[str, list[str]] = {}
    for name in METRICS:
        if math.isnan(evaluation.metrics[name].value):
            reasons.setdefault(why_missing(name, evaluation), []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())


def kind_rows(
    evaluation: Evaluation, table: dict[str, dict[str, float]] | None = None, intervals: bool = False
) -> list[list[str]]:
    """(kind, episodes, successes, final progress, beyond truth, mse, stage accuracy, boundary F1) of ``by_kind``, or
    of another table of its form; with ``intervals`` behind each metric."""

    def cell(row: dict[str, float], name: str) -> str:
        low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
        span = f" ({short(low)} to {short(high)})" if intervals and math.isfinite(low) else ""
        return short(row[name]) + span

    shown = ("final_progress", "beyond_truth", "mse", "stage_accuracy", "boundary_f1")
    return [
        [kind, f"{row['episodes']:.0f}", f"{row['successes']:.0f}", *(cell(row, name) for name in shown)]
        for kind, row in (evaluation.by_kind if table is None else table).items()
    ]


KIND_COLUMNS = (
    *("kind", "episodes", "successes", "final progress", "frames beyond truth"),
    *("mse", "stage accuracy", "boundary F1"),
)


def short(value: float) -> str:
    """A metric for people; a dash where there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"
