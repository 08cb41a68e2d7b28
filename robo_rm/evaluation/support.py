"""How many episodes stand behind each metric, and why a metric is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robo_rm.evaluation.evaluated import EvaluatedEpisode
from robo_rm.evaluation.probes import Count
from robo_rm.metrics import auroc_interval, trials_needed, voc_per_episode

FEWEST = 5
"""Episodes below which no interval of a mean is believed."""


@dataclass(frozen=True)
class Support:
    """What a metric is based on."""

    episodes: int
    """That count for it."""
    unit: str
    """What they are, in words."""
    fewest: int
    """Of these that which limits it: of successes and failures the fewer, else ``episodes``."""
    why_missing: str = ""
    """Where the metric cannot be computed: what is missing in these episodes."""

    def __str__(self) -> str:
        return self.unit if " and " in self.unit else counted(self.episodes, self.unit)


def counted(number: int, unit: str) -> str:
    """A number with its unit, which is given in the plural: 1 failure, 2 failures."""
    if number == 1:
        first, *rest = unit.split(" ")
        unit = " ".join([first[:-2] if first.endswith("sses") else first.removesuffix("s"), *rest])
    return f"{number} {unit}"


def support_of(
    evaluated: Sequence[EvaluatedEpisode], recorded: Sequence[tuple[str, Count]] = (), probes: int | None = None
) -> dict[str, Support]:
    """By metric, what it is based on.

    Args:
        evaluated: the episodes.
        recorded: probes that were recorded as episodes.
        probes: from how many episodes clips were asked for; None where that is not known.
    """
    counts = _Counts(evaluated)
    outcomes, both = counts.outcomes(), counts.both_outcomes()
    failures = counts.of(lambda e: e.failed and _labelled(e), "failures", counts.why_no_failure())
    not_failed = counts.of(lambda e: not e.failed and _labelled(e), "episodes that did not fail", counts.why_no_stage())
    measured = counts.of(
        lambda e: not e.failed and bool(np.isfinite(e.label).any()),
        "episodes that did not fail",
        "no stage was finished in an episode that did not fail",
    )
    ordered = voc_per_episode([e.prediction.progress for e in evaluated])
    moved = {e.uuid for e, value in zip(evaluated, ordered, strict=True) if np.isfinite(value)}
    clips = _clips(evaluated, recorded, probes)
    simulated = counts.of(lambda e: e.simulator is not None, "episodes", "the store holds no simulator.progress")
    return {
        "auroc": both,
        "auroc_max": both,
        "fpr_at_recall": both,
        "recall_at_threshold": counts.of(lambda e: e.success is True, "successes", counts.why_no_success(2), 2),
        "hallucination": failures,
        "hallucination_probes": clips,
        "stage_accuracy_failures": failures,
        "rho": counts.called(),
        "kendall_tau": simulated,
        "grade_tau": counts.graded(),
        "epic": simulated,
        "mse": measured,
        "mae": measured,
        "voc": counts.of(
            lambda e: not e.failed and e.uuid in moved,
            "episodes that did not fail",
            "every episode failed, has one frame, or has the same progress throughout",
        ),
        "voc_reversed": _clips(evaluated, (), probes),
        "stage_accuracy": not_failed,
        "boundary_f1": counts.of(_labelled, "episodes", "no stage begins in the labels, nor in what the model says"),
        "ece_stage": counts.of(_labelled, "episodes", "no episode has stage labels"),
        "ece_success": outcomes,
    }


def needed_for(metric: str, bound: float) -> int:
    """Fewest episodes (of successes and failures the fewer) with which a metric without a fault is known to keep a
    bound: below that its interval reaches over, whatever the model does."""
    if metric in ("auroc", "auroc_max"):
        return next(n for n in range(1, 10_000) if auroc_interval(1.0, n, n).low >= bound)
    if metric in ("fpr_at_recall", "hallucination", "hallucination_probes"):
        return trials_needed(bound)
    if metric in ("stage_accuracy", "stage_accuracy_failures", "boundary_f1", "recall_at_threshold"):
        return trials_needed(1 - bound)
    if metric == "voc":  # one more episode, of correlation 0, would leave n / (n + 1)
        return max(FEWEST, math.ceil(bound / (1 - bound) - 1e-9))
    return FEWEST


def _labelled(episode: EvaluatedEpisode) -> bool:
    return bool((episode.stage >= 0).any())


def _clips(evaluated: Sequence[EvaluatedEpisode], recorded: Sequence[tuple[str, Count]], probes: int | None) -> Support:
    made = sum(episode.clips.reversed_progress is not None or bool(episode.clips.counts) for episode in evaluated)
    count = made + len(recorded)
    why = "no clip was asked for (probes=0)" if probes == 0 else "no episode that did not fail to make clips from"
    return Support(count, "episodes with probe clips", count, why)


class _Counts:
    def __init__(self, evaluated: Sequence[EvaluatedEpisode]) -> None:
        self.evaluated = evaluated
        self.successes = sum(e.success is True for e in evaluated)
        self.failures = sum(e.failed for e in evaluated)
        self.unknown = len(evaluated) - self.successes - self.failures

    def of(self, counts: Callable[[EvaluatedEpisode], bool], unit: str, why: str, least: int = 1) -> Support:
        number = sum(counts(episode) for episode in self.evaluated)
        return Support(number, unit, number, why if number < least else "")

    def outcomes(self) -> Support:
        known = self.successes + self.failures
        return Support(known, "episodes of known outcome", known, "" if known else self._why_unknown())

    def both_outcomes(self) -> Support:
        why = self.why_no_failure() if not self.failures else self.why_no_success() if not self.successes else ""
        unit = f"{counted(self.successes, 'successes')} and {counted(self.failures, 'failures')}"
        return Support(self.successes + self.failures, unit, min(self.successes, self.failures), why)

    def called(self) -> Support:
        known = [episode for episode in self.evaluated if episode.standing]
        good = sum(episode.success is True for episode in known)
        why = ""
        if not known:
            why = self._why_unknown()
        elif good in (0, len(known)):
            why = self.why_no_failure() if good else self.why_no_success()
        return Support(len(known), "rollouts of known outcome", len(known), why)

    def graded(self) -> Support:
        between = sum(e.grade is not None and 0 < e.grade < 1 for e in self.evaluated)
        known = sum(e.grade is not None or e.success is not None for e in self.evaluated)
        return Support(known, "graded episodes", known, "" if between else "no grade lies between failure and success")

    def why_no_failure(self) -> str:
        return self._why("failure", self.failures)

    def why_no_success(self, least: int = 1) -> str:
        if 0 < self.successes < least:
            return f"it takes two successes, and of {counted(len(self.evaluated), 'episodes')} one is marked as such"
        return self._why("success", self.successes)

    def why_no_stage(self) -> str:
        if self.failures == len(self.evaluated):
            return "every episode failed"
        return "no episode that did not fail has stage labels"

    def _why(self, outcome: str, number: int) -> str:
        if number:
            return f"no {outcome} has stage labels"
        if self.unknown == len(self.evaluated):
            return self._why_unknown()
        unknown = f" ({self.unknown} of unknown outcome)" if self.unknown else ""
        return f"none of {counted(len(self.evaluated), 'episodes')} is marked as a {outcome}{unknown}"

    def _why_unknown(self) -> str:
        return f"whether they succeeded is unknown of all {len(self.evaluated)} episodes (store.set_success says it)"
