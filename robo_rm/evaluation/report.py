"""The page that `robo-rm eval-reward` writes: advice, metrics, worst cases first, stages, outcomes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robo_rm.evaluation import probe_table
from robo_rm.evaluation.advice import (
    KIND_COLUMNS,
    METRIC_COLUMNS,
    Advice,
    confusion,
    kind_rows,
    metric_rows,
    missing_metrics,
)
from robo_rm.evaluation.evaluate import Evaluation
from robo_rm.evaluation.flat_metrics import EvaluatedEpisode, stage_confidence
from robo_rm.report.charts import confusion_figure, reliability_figure, roc_figure, scores_figure
from robo_rm.report.film_strip import EpisodeView, episode_figure, strip_frames
from robo_rm.report.gallery import Card, gallery_figure
from robo_rm.report.page import Page

if TYPE_CHECKING:
    from robo_datasets import DemoStore

WORST, TYPICAL = 4, 4
GALLERY = 18


def write_report(
    evaluation: Evaluation,
    advice: Sequence[Advice],
    store: DemoStore,
    camera: str | None,
    title: str,
    path: str | os.PathLike[str],
    following: str = "",
) -> Path:
    """Write the self-contained page.

    Args:
        evaluation: what was measured.
        advice: what to do with the model.
        store: of the episodes.
        camera: key for film strips, None for none.
        title: of the page.
        path: to write to.
        following: the command to type next.
    """
    page = Page(title, f"Evaluated on {evaluation.scope} of {Path(store.path).name}.", "evaluating.md", following)
    page.section("Can I trust it?")
    page.verdicts((item.mark, item.text) for item in advice)
    page.section("The metrics")
    page.prose(
        "What it does on failures comes first: a model can follow every good demonstration and still see success where "
        "there is none. Intervals hold 95 % over episodes, and stay open where all episodes agree."
    )
    page.table(METRIC_COLUMNS, metric_rows(evaluation))
    missing = missing_metrics(evaluation)
    if missing:
        page.prose(f"Cannot be computed from these episodes: {missing}.")
    if len(evaluation.by_kind) > 1:
        page.table(KIND_COLUMNS, kind_rows(evaluation, intervals=True))
    if len(evaluation.by_task) > 1:
        page.table(("task", *KIND_COLUMNS[1:]), kind_rows(evaluation, evaluation.by_task, intervals=True))
    if evaluation.by_probe:
        page.prose("Where nothing is being achieved, a model should claim nothing. " + probe_table.ABOUT)
        page.table(probe_table.COLUMNS, probe_table.rows(evaluation))
        if evaluation.probes_left_out:
            page.prose(probe_table.left_out(evaluation).capitalize() + ".")
    speed = evaluation.speed
    if math.isfinite(speed.stream_ms):
        page.prose(
            f"Speed on this machine: {speed.frames_per_second:.0f} frames/s over stored episodes, "
            f"{speed.stream_ms:.1f} ms a step when streaming, {speed.encodes_per_step:g} image(s) encoded per step."
        )
    ranked = sorted(evaluation.episodes, key=lambda episode: -episode.error)
    _cases(page, "Worst cases", _WORST_TEXT, ranked[:WORST], evaluation, store, camera)
    typical = _typical(ranked[WORST:])
    if typical:
        _cases(page, "Typical episodes", _TYPICAL_TEXT, typical, evaluation, store, camera)
    _failures(page, evaluation, store, camera)
    _stages(page, evaluation)
    _outcomes(page, evaluation)
    return page.write(path)


_WORST_TEXT = (
    "Ranked by mean error of progress, plus the fraction of frames claimed too far and a final progress on the wrong "
    "side. The dashed line is the truth, the blue band the model's own uncertainty. Where the truth breaks off, the "
    "stage was never finished and its progress was not measured."
)
_TYPICAL_TEXT = "Of each kind the one in the middle by the same ranking."


def _cases(
    page: Page,
    title: str,
    text: str,
    episodes: Sequence[EvaluatedEpisode],
    evaluation: Evaluation,
    store: DemoStore,
    camera: str | None,
) -> None:
    page.section(title)
    page.prose(text)
    for evaluated in episodes:
        view = case_view(evaluated, evaluation, store, camera)
        page.image(episode_figure(view), alt=_curves_in_words(evaluated), photo=camera is not None)


def _curves_in_words(evaluated: EvaluatedEpisode) -> str:
    progress = evaluated.prediction.progress
    outcome = "outcome unknown" if evaluated.success is None else "a success" if evaluated.success else "a failure"
    return (
        f"{evaluated.kind}, {outcome}: predicted progress reaches {evaluated.highest:.2f} and ends at "
        f"{float(progress[-1]):.2f}, {_claimed(evaluated):.0%} of its frames in a stage beyond the true one"
    )


def _failures(page: Page, evaluation: Evaluation, store: DemoStore, camera: str | None) -> None:
    failures = sorted(evaluation.failures, key=lambda evaluated: -_claimed(evaluated))[:GALLERY]
    if not failures:
        return
    page.section("Every failure" if len(failures) == len(evaluation.failures) else f"The {GALLERY} worst failures")
    page.prose(
        "The most over-claimed first. Each image is the frame at which the model claims the most beyond the truth, "
        "with the predicted stage and the true one, and the fraction of all its frames that are claimed too far; under "
        "it the whole curve, the line marking that frame."
    )
    cards = [_card(evaluated, evaluation, store, camera) for evaluated in failures]
    worst = ", ".join(f"{card.title} {card.claimed:.0%}" for card in cards[:3])
    page.image(
        gallery_figure(cards),
        alt=f"{len(cards)} failures with the frame claimed furthest; frames claimed too far: {worst}",
        photo=True,
    )


def _card(evaluated: EvaluatedEpisode, evaluation: Evaluation, store: DemoStore, camera: str | None) -> Card:
    predicted, true = evaluated.prediction.stage, evaluated.stage
    ahead = np.where(true >= 0, predicted - true, -len(evaluation.stages)).astype(np.float64)
    # Among frames that are equally far ahead, the one in which the model believes most.
    at = int((ahead + 0.5 * evaluated.prediction.progress).argmax())
    image = None
    if camera is not None:
        whole = np.asarray(store.episode(evaluated.uuid)[camera][at])
        step = max(1, whole.shape[0] // 160)
        image = whole[::step, ::step]
    return Card(
        title=f"{evaluated.kind} {evaluated.uuid[:6]}",
        image=image,
        at=at,
        seconds=at / evaluation.fps,
        predicted=evaluation.stages[int(predicted[at])],
        true=evaluation.stages[int(true[at])] if true[at] >= 0 else "not labelled",
        claimed=_claimed(evaluated),
        progress=evaluated.prediction.progress,
        truth=evaluated.simulator if evaluated.simulator is not None else evaluated.label,
    )


def _claimed(evaluated: EvaluatedEpisode) -> float:
    known = evaluated.stage >= 0
    return float((evaluated.prediction.stage > evaluated.stage)[known].mean()) if known.any() else 0.0


def case_view(evaluated: EvaluatedEpisode, evaluation: Evaluation, store: DemoStore, camera: str | None) -> EpisodeView:
    """A evaluated episode as `episode_figure` draws it; its true curve is the label, or the simulator's progress."""
    truth = evaluated.label
    # A failure's last stage has no measured progress; the simulator, where there is one, knows it.
    if evaluated.simulator is not None and evaluated.failed:
        truth = evaluated.simulator
    frames = None if camera is None else strip_frames(store.episode(evaluated.uuid), camera)
    return EpisodeView(
        title=f"{evaluated.kind}, episode {evaluated.uuid[:8]}",
        fps=evaluation.fps,
        progress=evaluated.prediction.progress,
        stage=evaluated.prediction.stage,
        stages=evaluation.stages,
        success=evaluated.success,
        true_progress=truth,
        true_stage=evaluated.stage,
        uncertainty=evaluated.prediction.uncertainty,
        frames=frames,
    )


def _typical(ranked: Sequence[EvaluatedEpisode]) -> list[EvaluatedEpisode]:
    kinds: dict[str, list[EvaluatedEpisode]] = {}
    for evaluated in ranked:
        kinds.setdefault(evaluated.kind, []).append(evaluated)
    return [members[len(members) // 2] for _, members in sorted(kinds.items())][:TYPICAL]


def _stages(page: Page, evaluation: Evaluation) -> None:
    page.section("Stages")
    confidence, correct = stage_confidence(evaluation.episodes)
    counts = confusion(evaluation)
    right = np.divide(np.diag(counts), counts.sum(axis=1), out=np.zeros(len(counts)), where=counts.sum(axis=1) > 0)
    by_stage = ", ".join(f"{name} {part:.0%}" for name, part in zip(evaluation.stages, right, strict=True))
    page.images(
        [
            (
                confusion_figure(counts, evaluation.stages),
                "Rows are the true stages. Frames right of the diagonal are claimed too early, left of it too late.",
                f"Confusion of stages; frames whose stage is right: {by_stage}",
            ),
            (
                reliability_figure(confidence, correct),
                "Fraction of frames that were right, by the probability they were given; large dots are many frames.",
                _reliability_in_words(confidence, correct),
            ),
        ]
    )


def _outcomes(page: Page, evaluation: Evaluation) -> None:
    page.section("Outcomes")
    final = np.array([episode.final for episode in evaluation.episodes])
    highest = np.array([episode.highest for episode in evaluation.episodes])
    success = [episode.success for episode in evaluation.episodes]
    page.image(
        scores_figure(final, highest, success, [episode.kind for episode in evaluation.episodes]),
        "Each dot is an episode at its final progress; the tail runs up to its highest.",
        alt=_finals_in_words(final, success),
    )
    known = np.array([outcome is not None for outcome in success])
    good = np.array([outcome is True for outcome in success])[known]
    if good.any() and not good.all():
        page.image(
            roc_figure([("final progress", final[known]), ("highest progress", highest[known])], good),
            "Every threshold on progress: the failures it lets pass against the successes it lets pass.",
            alt=f"ROC curves of final and highest progress over {good.sum()} successes and {(~good).sum()} failures",
        )


def _reliability_in_words(confidence: np.ndarray, correct: np.ndarray) -> str:
    if not len(confidence):
        return "Reliability of the stage probabilities, without frames to measure it on"
    sure, right = float(np.mean(confidence)), float(np.mean(correct))
    return f"Reliability of the stage probabilities: {sure:.0%} sure on average, right in {right:.0%} of the frames"


def _finals_in_words(final: np.ndarray, success: Sequence[bool | None]) -> str:
    parts = []
    for outcome, word in ((True, "successes"), (False, "failures"), (None, "unknown outcomes")):
        mine = final[[one is outcome for one in success]]
        if len(mine):
            parts.append(f"{len(mine)} {word} end at {mine.min():.2f} to {mine.max():.2f}")
    return f"Final progress by outcome: {'; '.join(parts)}"
