"""Several reward models judged on the same episodes, with intervals of their differences.

Differences are bootstrapped over the same draws of episodes for both models (paired), so that an episode that is hard
for all counts for none of them.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robo_datasets.errors import ConfigError, StoreError
from robo_rm.judging.advice import FIGURES
from robo_rm.judging.evaluation import Evaluation, evaluate_reward_model, left_out
from robo_rm.judging.figures import FROM_CLIPS, statistics_of
from robo_rm.labels.seen import seen_episodes
from robo_rm.metrics import Interval, bootstrap_interval
from robo_rm.models.protocol import RewardModel

# What decides a place, failures first; every figure is shown.
RANKED_BY = ("auroc", "hallucination", "hallucination_probes", "rho", "mse", "voc", "stage_accuracy", "boundary_f1")


@dataclass(frozen=True)
class Board:
    """Evaluations of several models, best first, and how each differs from the best."""

    names: list[str]
    evaluations: dict[str, Evaluation]
    differences: dict[str, dict[str, Interval]]
    """Of each model but the first: figure minus the first model's, with its paired interval."""
    places: dict[str, float]
    """Mean rank of each model over the figures that all have, 1 for the best."""
    scope: str

    @property
    def best(self) -> str:
        """The model in the first place."""
        return self.names[0]


def common_episodes(models: Mapping[str, RewardModel], store: Any) -> tuple[list[str], str]:
    """Episodes that no model was trained or calibrated on: those held out by all, where there are such.

    Raises:
        StoreError: there is none.
    """
    if not len(store):
        raise StoreError(f"{store.path} holds no episode to judge the models on")
    known = [seen_episodes(model.provenance, store) for model in models.values()]
    seen = functools.reduce(operator.or_, known)
    unseen = [uuid for uuid in store.uuids if uuid not in seen]
    held_out = [
        set(model.provenance.get("holdout_uuids", ())) & set(unseen) or set(unseen) for model in models.values()
    ]
    common = [uuid for uuid in unseen if all(uuid in part for part in held_out)]
    kept, repeated = seen.once(common or unseen)
    if not kept:
        raise StoreError(
            f"every episode of {store.path} was trained on by one of the models, or known to it otherwise "
            f"({seen.told(store.uuids)}); give a store that none has seen, or train them with the same holdout= and "
            "seed= of robo-rm train-reward"
        )
    return kept, f"the {len(kept)} episodes that none of the models has seen{left_out(seen, repeated)}"


def compare(
    models: Mapping[str, RewardModel],
    store: Any,
    *,
    probes: int = 6,
    probe_store: Any = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Board:
    """Judge models on the same episodes and rank them.

    Raises:
        ConfigError: fewer than two models. StoreError, ModelError, LabelError: as `evaluate_reward_model`.
    """
    if len(models) < 2:
        raise ConfigError("a leaderboard needs two models at least: models=[rm_a,rm_b]")
    uuids, scope = common_episodes(models, store)
    evaluations = {
        name: evaluate_reward_model(
            model, store, which=uuids, probes=probes, probe_store=probe_store, resamples=resamples, seed=seed
        )
        for name, model in models.items()
    }
    places = _places(evaluations)
    names = sorted(evaluations, key=lambda name: (places[name], list(models).index(name)))
    ordered = {name: evaluations[name] for name in names}
    return Board(names, ordered, _differences(ordered, resamples, seed), places, scope)


def _places(evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    ranks: dict[str, list[float]] = {name: [] for name in evaluations}
    for figure in RANKED_BY:
        values = {name: e.figures[figure].value for name, e in evaluations.items()}
        if not all(math.isfinite(value) for value in values.values()):
            continue
        sign = -1 if FIGURES[figure].better == "high" else 1
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
            figure: bootstrap_interval(
                lambda draw, figure=figure, other=other: other[figure](draw) - base[figure](draw),  # type: ignore[misc]
                count,
                resamples=resamples,
                seed=seed,
            )
            for figure in FIGURES
        }
        if sum(episode.clips.frames > 0 for episode in evaluations[name].episodes) < 2:
            for figure in FROM_CLIPS:
                found[name][figure] = Interval(found[name][figure].value, float("nan"), float("nan"))
    return found


def flat_board(board: Board) -> dict[str, float | str]:
    """Stable keys: MODEL.FIGURE with _low and _high, MODEL.place, MODEL.FIGURE_minus_best with _low and _high."""
    flat: dict[str, float | str] = {"best": board.best, "episodes": len(board.evaluations[board.best].episodes)}
    for name, evaluation in board.evaluations.items():
        flat[f"{name}.place"] = board.places[name]
        for figure, interval in evaluation.figures.items():
            flat[f"{name}.{figure}"], flat[f"{name}.{figure}_low"], flat[f"{name}.{figure}_high"] = interval
        flat[f"{name}.stream_ms"] = evaluation.speed.stream_ms
        flat[f"{name}.frames_per_second"] = evaluation.speed.frames_per_second
        for figure, difference in board.differences.get(name, {}).items():
            key = f"{name}.{figure}_minus_best"
            flat[key], flat[f"{key}_low"], flat[f"{key}_high"] = difference
    return flat


def board_rows(board: Board) -> list[list[str]]:
    """(figure, value of each model ...): `*` where a model differs from the first one beyond chance."""
    rows = []
    for figure in FIGURES:
        values = [board.evaluations[name].figures[figure].value for name in board.names]
        if not any(math.isfinite(value) for value in values):
            continue
        cells = [_short(values[0])]
        for name, value in zip(board.names[1:], values[1:], strict=True):
            low, high = board.differences[name][figure][1:]
            sure = math.isfinite(low) and (low > 0 or high < 0)
            cells.append(_short(value) + (" *" if sure else ""))
        rows.append([figure, *cells])
    for label, read in (
        ("stream, ms a step", lambda e: f"{e.speed.stream_ms:.1f}"),
        ("mean place", None),
    ):
        rows.append([label, *(read(board.evaluations[n]) if read else f"{board.places[n]:.2f}" for n in board.names)])
    return rows


def most_disputed(board: Board, count: int) -> Sequence[str]:
    """Episodes on which the models' progress lies furthest apart, on average over frames, the most disputed first."""
    episodes = {name: {e.uuid: e for e in evaluation.episodes} for name, evaluation in board.evaluations.items()}
    apart = {
        uuid: float(np.mean(np.ptp([episodes[name][uuid].prediction.progress for name in board.names], axis=0)))
        for uuid in episodes[board.best]
    }
    return sorted(apart, key=lambda uuid: -apart[uuid])[:count]


def _short(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"
