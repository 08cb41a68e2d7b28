"""Evaluating a reward model on episodes it has not seen: predictions beside the truth, and the metrics that follow.

The truth is the stage labels, turned into progress with the model's own priors (so that the metric measures the model,
not the choice of priors), and the simulator's progress where the store carries it. Frames of a segment that was never
finished have a stage but no measured progress: they count for stages and not for errors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robo_core.console import progress_bar
from robo_core.errors import ConfigError, ModelError, StoreError
from robo_rm.evaluation.evaluated import EvaluatedEpisode
from robo_rm.evaluation.flat_metrics import by_kind, by_probe, compute_metrics
from robo_rm.evaluation.probes import Count, ProbeClips, probe_episode, probe_recorded, why_left_out
from robo_rm.evaluation.support import Support, support_of
from robo_rm.labels.grouping import as_trained
from robo_rm.labels.progress import cumulative_priors, stored_labels
from robo_rm.labels.tasks import priors_of
from robo_rm.labels.training_overlap import TRAINED, TrainingOverlap, training_overlap
from robo_rm.metrics import Interval
from robo_rm.reward_models.calibration import CalibratedModel
from robo_rm.reward_models.capabilities import HasPriors, OnlyRecorded, StoresFeatures, capability
from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.protocol import RewardModel
from robo_rm.scoring import check_model_fits, check_prediction, episode_kind

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Episode

SIMULATOR_PROGRESS = "simulator.progress"


@dataclass(frozen=True)
class Speed:
    """How fast the model is on this machine; NaN where it was not measured."""

    frames_per_second: float = float("nan")
    """Offline, reading the store included."""
    stream_ms: float = float("nan")
    """Median milliseconds of one streaming step, after the first few."""
    encodes_per_step: float = float("nan")
    """Images encoded per streaming step."""


@dataclass(frozen=True)
class Evaluation:
    """A reward model evaluated on a store."""

    stages: list[str]
    fps: float
    episodes: list[EvaluatedEpisode]
    metrics: dict[str, Interval]
    by_kind: dict[str, dict[str, float]]
    speed: Speed
    scope: str
    """Which episodes were evaluated, in words."""
    overlaps_training: bool = False
    """Whether the model was trained on some of them."""
    by_task: dict[str, dict[str, float]] = field(default_factory=dict)
    """As ``by_kind``, for each instruction."""
    by_probe: dict[str, dict[str, float]] = field(default_factory=dict)
    """Clips, frames and the fraction claimed beyond the truth, of each probe."""
    probes_left_out: dict[str, str] = field(default_factory=dict)
    """Probes that could not be built, and why."""
    recorded: tuple[tuple[str, Count], ...] = ()
    """What the model says of probes that were recorded as episodes."""
    probes: int | None = None
    """From how many episodes probe clips were asked for; None where that is not known."""

    @property
    def support(self) -> dict[str, Support]:
        """What each metric is based on."""
        return support_of(self.episodes, self.recorded, self.probes)

    @property
    def failures(self) -> list[EvaluatedEpisode]:
        """Episodes known to have failed."""
        return [episode for episode in self.episodes if episode.failed]


def choose_episodes(
    model: RewardModel,
    store: DemoStore,
    which: str = "unseen",
    advice: str = ", or evaluate it on what it knows: episodes=all",
) -> tuple[list[str], str, bool]:
    """Episodes to evaluate on: (uuids, in words, whether the model knows some).

    ``unseen``: the held-out ones that are in this store; where there are none, all that the model does not know. It
    knows what it was trained on, what chose its checkpoint and what calibrated it, and copies of these under any name
    (`robo_rm.labels.training_overlap`). An episode that is there twice is evaluated once. ``all``: every episode.

    ``advice`` is what the caller has besides, where nothing is left, for the error.

    Raises:
        ConfigError: ``which`` is neither.
        StoreError: the store is empty, or the model knows all of it.
    """
    if which not in ("unseen", "all"):
        raise ConfigError(f"episodes={which} is unknown; choose unseen or all")
    if not len(store):
        raise StoreError(f"{store.path} holds no episode to evaluate the model on")
    overlap = training_overlap(model.provenance, store)
    if which == "all":
        known = overlap.describe(store.uuids)
        words = known or "0 of them trained on"
        return list(store.uuids), f"all {len(store)} episodes, {words}", bool(overlap.roles)
    unseen = [uuid for uuid in store.uuids if uuid not in overlap]
    held_out = set(model.provenance.get("holdout_uuids", ()))
    chosen, repeated = overlap.without_repeats([uuid for uuid in unseen if uuid in held_out] or unseen)
    if not chosen:
        raise StoreError(none_left("the model", overlap, store, advice))
    among = "the {} episodes held out of training" if set(chosen) <= held_out else "{} episodes the model has not seen"
    return chosen, among.format(len(chosen)) + left_out(overlap, repeated, chosen), False


def left_out(overlap: TrainingOverlap, repeated: Mapping[str, str], chosen: Sequence[str]) -> str:
    """In brackets, which episodes are unexpectedly left out of the evaluation; empty where there are none.

    Those that trained the model under their own names go without saying. Of the ``chosen`` it says how many look as
    if they were known, too.
    """
    copied = [uuid for uuid in overlap.roles if uuid in overlap.copies]
    others = [uuid for uuid in overlap.roles if overlap.roles[uuid] != TRAINED and uuid not in overlap.copies]
    words = []
    if copied:
        words.append(f"{len(copied)} left out as copies, under other names, of episodes that it knows")
    if others:
        words.append(f"left out: {overlap.describe(others)}")
    if repeated:
        words.append(f"{len(repeated)} there twice counted once")
    alike = sum(uuid in overlap.alike for uuid in chosen)
    if alike:
        words.append(
            f"{alike} have states and actions of episodes that it knows, with other images: copies encoded "
            "again would look like that"
        )
    return f" ({'; '.join(words)})" if words else ""


def none_left(who: str, overlap: TrainingOverlap, store: DemoStore, advice: str = "") -> str:
    """The error where every episode of a store is known to ``who``."""
    words = overlap.describe(store.uuids)
    known = (
        f"trained on all {len(store)} episodes"
        if words == f"{len(store)} of them trained on"
        else (f"trained on all {len(store)} episodes, or knows them otherwise ({words}),")
    )
    return (
        f"{who} was {known} of {store.path}; give a store it has not seen, or train with episodes held out "
        f"(robo-rm train-reward holdout=8){advice}"
    )


def evaluate_reward_model(
    model: RewardModel,
    store: DemoStore,
    *,
    which: str | Sequence[str] = "unseen",
    probes: int = 6,
    probe_store: DemoStore | None = None,
    resamples: int = 1000,
    seed: int = 0,
    labels: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> Evaluation:
    """Evaluate a model on a store.

    Args:
        model: the reward model.
        store: a demo store with stage labels.
        which: ``unseen`` or ``all``, see `choose_episodes`; or the uuids of the episodes themselves.
        probes: episodes that did not fail from which probe clips are made, see `robo_rm.evaluation.probes`.
        probe_store: a store of episodes that were recorded to probe with, such as an empty scene.
        resamples: of the bootstrap intervals.
        seed: of the bootstrap.
        labels: by uuid, true progress (T,), NaN where it was not measured, to measure several models by one truth; by
            default it is made with the model's own priors.

    Raises:
        ModelError: the model does not fit the store, or predicts something that is not a number.
        StoreError: the episodes have no stage labels, or there is none to evaluate on.
        LabelError: a stage label is out of range.
    """
    store = as_trained(store, model.provenance)
    check_model_fits(model, store)
    priors = model_priors(model)
    if isinstance(which, str):
        uuids, scope, overlaps = choose_episodes(model, store, which)
    else:
        uuids, scope, overlaps = list(which), f"{len(which)} episodes", False
    _check_labels(store, uuids)
    if probe_store is not None:
        probe_store = as_trained(probe_store, model.provenance)
        check_model_fits(model, probe_store)
        _check_labels(probe_store, probe_store.uuids)
    if (frozen := capability(model, StoresFeatures)) is not None:
        # A frozen encoder's features are stored, so that each frame is encoded once, whoever asks.
        frozen.store_features(store, [store.episode(uuid) for uuid in uuids])
    if capability(model, OnlyRecorded) is not None:
        probes = 0  # clips have frames that nobody predicted
    evaluated, seconds = _evaluate_episodes(model, store, uuids, priors, probes)
    if labels is not None:
        evaluated = [replace(episode, label=labels[episode.uuid]) for episode in evaluated]
    recorded = [] if probe_store is None else probe_recorded(model, probe_store)
    frames = sum(len(episode.stage) for episode in evaluated)
    table = by_probe(evaluated, recorded)
    return Evaluation(
        stages=list(model.stages),
        fps=store.fps,
        episodes=evaluated,
        metrics=compute_metrics(evaluated, store.fps, recorded=recorded, resamples=resamples, seed=seed),
        by_kind=by_kind(evaluated, store.fps, resamples=resamples, seed=seed),
        speed=_streaming_speed(model, store.episode(uuids[0]), frames / max(seconds, 1e-9)),
        scope=scope,
        overlaps_training=overlaps,
        by_task=by_kind(evaluated, store.fps, "task", resamples=resamples, seed=seed),
        by_probe=table,
        probes_left_out=why_left_out(store.tasks, list(table)),
        recorded=tuple(recorded),
        probes=probes,
    )


def model_priors(model: RewardModel) -> npt.NDArray[np.float64]:
    """The model's stage priors (K,).

    Raises:
        ModelError: it carries none, or another number of them than stages.
    """
    known = capability(model, HasPriors)
    priors = model.provenance.get("priors", None if known is None else known.priors)
    if priors is None:
        raise ModelError("the model carries no stage priors (provenance 'priors'), so progress labels cannot be made")
    array = np.asarray(priors, dtype=np.float64)
    if array.shape != (len(model.stages),):
        raise ModelError(f"the model has {len(model.stages)} stages and priors of shape {array.shape}")
    return array


def _check_labels(store: DemoStore, uuids: Sequence[str]) -> None:
    """Raise StoreError where there is nothing to evaluate against: stage labels, both outcomes, or grades."""
    episodes = [store.episode(uuid) for uuid in uuids]
    if store.stages and any((episode.stage >= 0).any() for episode in episodes):
        return
    outcomes = {episode.success for episode in episodes}
    if outcomes >= {True, False} or len({grade_of(episode) for episode in episodes} - {None}) > 1:
        return
    if not store.stages:
        raise StoreError(
            f"{store.path} names no stages, so there is no ground truth; type the import command again with "
            "stages=FILE relabel=true, or mark successes and failures with store.set_success"
        )
    raise StoreError(
        f"none of the {len(uuids)} episodes of {store.path} to be evaluated has stage labels; set them with "
        "store.set_stages or import with stages=FILE, or mark successes and failures with store.set_success"
    )


def _evaluate_episodes(
    model: RewardModel, store: DemoStore, uuids: Sequence[str], priors: npt.NDArray[np.float64], probes: int
) -> tuple[list[EvaluatedEpisode], float]:
    evaluated: list[EvaluatedEpisode] = []
    seconds = 0.0
    lengths = store.lengths
    with progress_bar("evaluate", total=sum(lengths[uuid] for uuid in uuids), unit="frames") as bar:
        for uuid in uuids:
            episode = store.episode(uuid)
            started = time.perf_counter()
            prediction = model.predict(episode)
            seconds += time.perf_counter() - started
            check_prediction(prediction, uuid)
            clips = ProbeClips()
            if probes and episode.success is not False:
                clips = probe_episode(model, episode, store.fps, store.tasks)
                probes -= 1
            own = priors_of({"priors": priors, **model.provenance}, episode.task)
            evaluated.append(_evaluated_episode(episode, prediction, own, clips, _chance_of_success(model, prediction)))
            bar.advance(episode.length)
    return evaluated, seconds


def _chance_of_success(model: RewardModel, prediction: Prediction) -> float | None:
    """What a calibrated model makes of the final progress; None where it was not calibrated for that."""
    if not isinstance(model, CalibratedModel) or model.calibration.success is None:
        return None
    return float(np.interp(prediction.progress[-1], *model.calibration.success))


def _evaluated_episode(
    episode: Episode, prediction: Prediction, priors: npt.NDArray[np.float64], clips: ProbeClips, chance: float | None
) -> EvaluatedEpisode:
    labels = stored_labels(episode, priors)
    simulator = None
    if SIMULATOR_PROGRESS in episode:
        simulator = np.asarray(episode[SIMULATOR_PROGRESS][:], dtype=np.float32).reshape(-1)
    reached = None
    labelled = np.flatnonzero(labels.stage >= 0)
    if episode.success is False and labelled.size:
        begin = cumulative_priors(priors)
        last = int(labels.stage[labelled[-1]])
        reached = float(begin[last]), float(begin[last + 1])
    return EvaluatedEpisode(
        uuid=episode.uuid,
        kind=episode_kind(episode),
        success=episode.success,
        prediction=prediction,
        stage=labels.stage,
        label=np.where(labels.complete, labels.progress, np.float32(np.nan)),
        simulator=simulator,
        clips=clips,
        task=str(episode.task or ""),
        reached=reached,
        grade=grade_of(episode),
        chance=chance,
    )


GRADES = {"success": 1.0, "partial": 0.5, "half": 0.5, "half_success": 0.5, "suboptimal": 0.5, "failure": 0.0}


def grade_of(episode: Episode) -> float | None:
    """How much of the task it did in a human's grading, 0 to 1: the attribute ``grade_value``, else ``grade`` where
    that is a number or one of `GRADES`; None without one."""
    attributes = episode.attributes or {}
    value = attributes.get("grade_value", attributes.get("grade"))
    value = GRADES.get(value.lower()) if isinstance(value, str) else value
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _streaming_speed(model: RewardModel, episode: Episode, frames_per_second: float, steps: int = 40) -> Speed:
    if capability(model, OnlyRecorded) is not None:
        return Speed(frames_per_second=math.nan, stream_ms=math.nan, encodes_per_step=math.nan)
    count = min(steps, episode.length)
    images = {key: episode[key][0:count] for key in model.cameras}
    state = episode[model.state_key][0:count] if model.state_key else None
    stream = model.stream(episode.task)
    before = model.frames_encoded
    times = []
    for t in range(count):
        started = time.perf_counter()
        stream.step({key: images[key][t] for key in model.cameras}, None if state is None else state[t])
        times.append(time.perf_counter() - started)
    # The first steps pay for what is set up once.
    settled = times[5:] or times
    return Speed(
        frames_per_second=frames_per_second,
        stream_ms=1000 * float(np.median(settled)),
        encodes_per_step=(model.frames_encoded - before) / count,
    )
