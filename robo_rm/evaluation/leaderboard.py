"""Several reward models evaluated on the same episodes and by the same truth, with intervals of their differences.

Differences are bootstrapped over the same draws of episodes for both models (paired), so that an episode that is hard
for all counts for none of them. Whether a difference is more than chance says a randomisation test, paired as well and
corrected for all comparisons of the board (Holm): among a hundred comparisons, five of alike models would stand out.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, LabelError, StoreError
from robo_datasets.store.instructions import instruction_groups
from robo_rm.evaluation.advice import METRICS, short
from robo_rm.evaluation.evaluate import Evaluation, evaluate_reward_model, left_out
from robo_rm.evaluation.flat_metrics import FROM_CLIPS, statistics_of
from robo_rm.evaluation.statistics import ranks_of
from robo_rm.labels.progress import stored_labels, training_priors
from robo_rm.labels.tasks import priors_of, task_priors
from robo_rm.labels.training_overlap import training_overlap
from robo_rm.metrics import Interval, bootstrap_interval, holm, swap_p_value
from robo_rm.reward_models.protocol import RewardModel

if TYPE_CHECKING:
    from robo_datasets import DemoStore

LEVEL = 0.05
# What decides a place, failures first; every metric is shown.
RANKED_BY = ("auroc", "hallucination", "hallucination_probes", "rho", "mse", "voc", "stage_accuracy", "boundary_f1")


@dataclass(frozen=True)
class Board:
    """Evaluations of several models, best first, and how each differs from the best."""

    names: list[str]
    evaluations: dict[str, Evaluation]
    differences: dict[str, dict[str, Interval]]
    """Of each model but the first: metric minus the first model's, with its paired interval."""
    chances: dict[str, dict[str, float]]
    """Of these, the p-value, corrected for all comparisons of all pairs of models; NaN where there is no difference to
    measure."""
    places: dict[str, float]
    """Mean rank of each model over the metrics that all have, 1 for the best."""
    scope: str

    def surely(self, name: str, metric: str) -> bool:
        """Whether a model differs from the first one in a metric by more than chance, after correction."""
        return self.chances[name][metric] <= LEVEL

    @property
    def best(self) -> str:
        """The model in the first place."""
        return self.names[0]


def common_episodes(models: Mapping[str, RewardModel], store: DemoStore) -> tuple[list[str], str]:
    """Episodes that no model was trained or calibrated on: those held out by all, where there are such.

    Raises:
        StoreError: there is none.
    """
    if not len(store):
        raise StoreError(f"{store.path} holds no episode to evaluate the models on")
    known = [training_overlap(model.provenance, store) for model in models.values()]
    overlap = functools.reduce(operator.or_, known)
    unseen = [uuid for uuid in store.uuids if uuid not in overlap]
    held_out = [
        set(model.provenance.get("holdout_uuids", ())) & set(unseen) or set(unseen) for model in models.values()
    ]
    common = [uuid for uuid in unseen if all(uuid in part for part in held_out)]
    chosen, repeated = overlap.without_repeats(common or unseen)
    if not chosen:
        raise StoreError(
            f"every episode of {store.path} was trained on by one of the models, or known to it otherwise "
            f"({overlap.describe(store.uuids)}); give a store that none has seen, or train them with the same "
            "holdout= and seed= of robo-rm train-reward"
        )
    return chosen, f"the {len(chosen)} episodes that none of the models has seen{left_out(overlap, repeated, chosen)}"


def compare(
    models: Mapping[str, RewardModel],
    store: DemoStore,
    *,
    probes: int = 6,
    probe_store: DemoStore | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Board:
    """Evaluate models on the same episodes and rank them.

    Raises:
        ConfigError: fewer than two models. StoreError, ModelError, LabelError: as `evaluate_reward_model`.
    """
    if len(models) < 2:
        raise ConfigError("a leaderboard needs two models at least: models=[rm_a,rm_b]")
    uuids, scope = common_episodes(models, store)
    labels = store_labels(store, uuids)
    evaluations = {
        name: evaluate_reward_model(
            model,
            store,
            which=uuids,
            probes=probes,
            probe_store=probe_store,
            resamples=resamples,
            seed=seed,
            labels=labels,
        )
        for name, model in models.items()
    }
    places = _places(evaluations)
    names = sorted(evaluations, key=lambda name: (places[name], list(models).index(name)))
    ordered = {name: evaluations[name] for name in names}
    return Board(
        names, ordered, _differences(ordered, resamples, seed), _chances(ordered, resamples, seed), places, scope
    )


def store_labels(store: DemoStore, uuids: Sequence[str]) -> dict[str, npt.NDArray[np.float32]] | None:
    """True progress (T,) of episodes by the stage priors of the whole store, NaN where it was not measured: one truth
    for all models, whatever their own priors. None for a store without labels.

    Raises:
        LabelError: a stage label is out of range.
    """
    count = len(store.stages)
    episodes = [episode for episode in store if count and (np.asarray(episode.stage) >= 0).any()]
    try:
        groups = instruction_groups(store)
        priors = {
            "priors": training_priors(episodes, count),
            "task_priors": task_priors(episodes, count, groups),
            "instruction_groups": groups,
        }
    except LabelError:  # no stage was ever finished, so no progress is measured
        return None
    found = {}
    for uuid in uuids:
        episode = store.episode(uuid)
        truth = stored_labels(episode, priors_of(priors, episode.task))
        found[uuid] = np.where(truth.complete, truth.progress, np.float32(np.nan))
    return found


def _places(evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    ranks: dict[str, list[float]] = {name: [] for name in evaluations}
    for metric in RANKED_BY:
        values = {name: e.metrics[metric].value for name, e in evaluations.items()}
        if not all(math.isfinite(value) for value in values.values()):
            continue
        sign = -1 if METRICS[metric].better == "high" else 1
        for name, value in values.items():
            better = sum(sign * other < sign * value for other in values.values())
            same = sum(other == value for other in values.values())
            ranks[name].append(1 + better + (same - 1) / 2)
    return {name: float(np.mean(part)) if part else float("nan") for name, part in ranks.items()}


def _differences(evaluations: Mapping[str, Evaluation], resamples: int, seed: int) -> dict[str, dict[str, Interval]]:
    names = list(evaluations)
    base = statistics_of(evaluations[names[0]].episodes, evaluations[names[0]].fps)
    found: dict[str, dict[str, Interval]] = {}
    for name in names[1:]:
        other = statistics_of(evaluations[name].episodes, evaluations[name].fps)
        count = len(evaluations[name].episodes)
        found[name] = {
            metric: bootstrap_interval(
                lambda draw, metric=metric, other=other: other[metric](draw) - base[metric](draw),  # type: ignore[misc]
                count,
                resamples=resamples,
                seed=seed,
            )
            for metric in METRICS
        }
        if sum(episode.clips.frames > 0 for episode in evaluations[name].episodes) < 2:
            for metric in FROM_CLIPS:
                found[name][metric] = Interval(found[name][metric].value, float("nan"), float("nan"))
    return found


def _chances(evaluations: Mapping[str, Evaluation], resamples: int, seed: int) -> dict[str, dict[str, float]]:
    names = list(evaluations)
    pairs = len(names) * (len(names) - 1) // 2
    # So many that the smallest p-value can pass the correction.
    draws = max(resamples, math.ceil(2 * pairs * len(METRICS) / LEVEL))
    first = evaluations[names[0]]
    found = {name: _pair_chances(first, evaluations[name], draws, seed) for name in names[1:]}
    measured = sum(math.isfinite(value) for value in found[names[1]].values())
    flat = [(name, metric, value) for name, part in found.items() for metric, value in part.items()]
    # The first model was chosen among all by the same metrics, so all pairs could have been compared.
    corrected = holm([value for _, _, value in flat], pairs * measured)
    for (name, metric, _), value in zip(flat, corrected.tolist(), strict=True):
        found[name][metric] = value
    return found


def _pair_chances(first: Evaluation, second: Evaluation, draws: int, seed: int) -> dict[str, float]:
    """P-value of each metric's difference between two models on the same episodes."""
    count = len(first.episodes)
    (final, highest), (other_final, other_highest) = ranks_of(first.episodes), ranks_of(second.episodes)
    # One table of both models' episodes: exchanging two is drawing the other's place.
    statistics = statistics_of(
        [*first.episodes, *second.episodes],
        first.fps,
        (np.concatenate([final, other_final]), np.concatenate([highest, other_highest])),
    )
    places = np.arange(count)

    def difference(metric: str) -> Callable[[npt.NDArray[np.bool_]], float]:
        def exchanged(swap: npt.NDArray[np.bool_]) -> float:
            mine, theirs = places + count * swap, places + count * ~swap
            return statistics[metric](theirs) - statistics[metric](mine)

        return exchanged

    found = {}
    for metric in METRICS:
        clips = sum(episode.clips.frames > 0 for episode in first.episodes)
        episodes = clips if metric in FROM_CLIPS else count
        found[metric] = swap_p_value(difference(metric), count, draws, seed) if episodes > 1 else float("nan")
    return found


def flat_board(board: Board) -> dict[str, float | str]:
    """Stable keys: MODEL.FIGURE with _low and _high, MODEL.place, MODEL.FIGURE_minus_best with _low, _high and the
    corrected p-value _p."""
    flat: dict[str, float | str] = {"best": board.best, "episodes": len(board.evaluations[board.best].episodes)}
    for name, evaluation in board.evaluations.items():
        flat[f"{name}.place"] = board.places[name]
        for metric, interval in evaluation.metrics.items():
            flat[f"{name}.{metric}"], flat[f"{name}.{metric}_low"], flat[f"{name}.{metric}_high"] = interval
        flat[f"{name}.stream_ms"] = evaluation.speed.stream_ms
        flat[f"{name}.frames_per_second"] = evaluation.speed.frames_per_second
        for metric, difference in board.differences.get(name, {}).items():
            key = f"{name}.{metric}_minus_best"
            flat[key], flat[f"{key}_low"], flat[f"{key}_high"] = difference
            flat[f"{key}_p"] = board.chances[name][metric]
    return flat


def board_rows(board: Board) -> list[list[str]]:
    """(metric, value of each model ..., over which episodes): `*` where a model differs from the first one by more than
    chance, corrected for the number of comparisons."""
    rows = []
    support = board.evaluations[board.best].support
    for metric in METRICS:
        values = [board.evaluations[name].metrics[metric].value for name in board.names]
        if not any(math.isfinite(value) for value in values):
            continue
        cells = [short(values[0])]
        for name, value in zip(board.names[1:], values[1:], strict=True):
            cells.append(short(value) + (" *" if board.surely(name, metric) else ""))
        rows.append([metric, *cells, str(support[metric])])
    for label, read in (
        ("stream, ms a step", lambda e: f"{e.speed.stream_ms:.1f}"),
        ("mean place", None),
    ):
        shown = [read(board.evaluations[n]) if read else short(board.places[n]) for n in board.names]
        rows.append([label, *shown, ""])
    return rows


def most_disputed(board: Board, count: int) -> Sequence[str]:
    """Episodes on which the models' progress lies furthest apart, on average over frames, the most disputed first."""
    episodes = {name: {e.uuid: e for e in evaluation.episodes} for name, evaluation in board.evaluations.items()}
    apart = {
        uuid: float(np.mean(np.ptp([episodes[name][uuid].prediction.progress for name in board.names], axis=0)))
        for uuid in episodes[board.best]
    }
    return sorted(apart, key=lambda uuid: -apart[uuid])[:count]
