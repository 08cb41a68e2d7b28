"""Ways to make a learning reward from gold and a potential: the right one, and those it is compared with.

``pbrs`` keeps the best policy; the others do not in general, and are there so that the difference can be seen. Modes
that change the learner as well (one critic per term, an adapted blend, a penalty towards the demonstrations) compose
their reward here and have their other half in the learner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError
from robo_rm.shaping.core import check_discount, shaped_reward
from robo_rm.shaping.settings import ENSEMBLE_RULES, LEARNER_MODES, MODES, ShapingSettings

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decisions:
    """What is known of a batch of decisions; all arrays (B,).

    Attributes:
        gold: discounted sum of gold within the decision.
        potential: F(h) where it was taken.
        next_potential: F(h') where it ended, of the final observation for a truncated episode.
        start_potential: F at the start of its episode.
        terminated: the task ended there.
        truncated: the time ran out there.
        steps: environment steps it took.
    """

    gold: Array
    potential: Array
    next_potential: Array
    start_potential: Array
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]


def compose_reward(settings: ShapingSettings, decisions: Decisions, discount: float) -> Array:
    """(B,) the reward to learn from.

    Raises:
        ConfigError: unknown mode, a bad setting, NaN or infinity in what the mode uses.
    """
    terms = reward_terms(settings, decisions, discount)
    return np.asarray(sum(terms.values()), dtype=np.float64)


def reward_terms(settings: ShapingSettings, decisions: Decisions, discount: float) -> dict[str, Array]:
    """The parts that `compose_reward` adds up, by name: ``gold`` and, except for sparse, ``shaping``; each (B,)."""
    check_settings(settings)
    check_discount(discount)
    gold = _finite("gold", decisions.gold)
    if settings.mode == "sparse":
        return {"gold": gold}
    before = settings.scale * _finite("potential", decisions.potential)
    # What a model says of a terminal state may be anything; only modes that wrongly use it look at it.
    after = settings.scale * np.asarray(decisions.next_potential, dtype=np.float64)
    return {"gold": gold, "shaping": _shaping(settings, decisions, gold, before, after, discount)}


def _shaping(
    settings: ShapingSettings, decisions: Decisions, gold: Array, before: Array, after: Array, discount: float
) -> Array:
    zero = np.zeros_like(gold)
    if settings.mode in ("pbrs", "pbrs_centred"):
        shift = settings.scale if settings.mode == "pbrs_centred" else 0.0
        return np.asarray(
            shaped_reward(zero, before - shift, after - shift, decisions.terminated, discount, decisions.steps)
        )
    after = _finite("next potential", after)
    if settings.mode == "additive" or settings.mode in LEARNER_MODES:
        return after
    if settings.mode == "difference":
        return np.asarray(after - before)
    start = settings.scale * _finite("start potential", decisions.start_potential)
    if settings.mode == "gated":
        paid = (decisions.terminated | decisions.truncated) & (gold >= settings.gate)
        return np.where(paid, after - start, zero)
    return np.asarray(1.0 / (1.0 + np.exp(-(after - start) / (settings.scale * settings.temperature))))


def value_bounds(settings: ShapingSettings, potential: npt.ArrayLike) -> tuple[Array, Array] | None:
    """What the value of a state can be at least and at most, given its potential (B,): two arrays (B,).

    Gold is paid once, 1 at most, where the task ends, so without shaping a value lies in [0, 1]; potential-based
    shaping moves it by -F(h) (Wiewiora 2003). A critic that claims more, or less, is wrong, and learning from its
    claims can be bounded without moving what is best. None for modes that have no such bounds.
    """
    if settings.occupancy or settings.mode not in ("sparse", "pbrs", "pbrs_centred"):
        return None
    moved = np.zeros_like(np.asarray(potential, dtype=np.float64))
    if settings.mode != "sparse":
        shift = settings.scale if settings.mode == "pbrs_centred" else 0.0
        moved = settings.scale * _finite("potential", potential) - shift
    return -moved, 1.0 - moved


def check_settings(settings: ShapingSettings) -> None:
    """Raise ConfigError for an unknown mode or a scale or temperature that makes no sense."""
    if settings.mode not in MODES:
        raise ConfigError(f"shaping mode {settings.mode!r} is not known; choose one of: {', '.join(MODES)}")
    if not settings.scale > 0 or not settings.temperature > 0:
        raise ConfigError(f"shaping scale={settings.scale} temperature={settings.temperature}: both must be above 0")
    if not settings.occupancy >= 0 or not settings.pessimism >= 0:
        raise ConfigError(
            f"shaping occupancy={settings.occupancy} pessimism={settings.pessimism}: both must be 0 or more"
        )
    if settings.ensemble and settings.ensemble not in ENSEMBLE_RULES:
        raise ConfigError(
            f"shaping ensemble={settings.ensemble!r} is not known; choose one of: {', '.join(ENSEMBLE_RULES)}"
        )


def check_plain(settings: ShapingSettings) -> None:
    """Raise ConfigError for modes that a reward alone cannot be, since one half of them is in the learner."""
    check_settings(settings)
    learnt = settings.mode if settings.mode in LEARNER_MODES else ("occupancy" if settings.occupancy else "")
    if learnt:
        raise ConfigError(f"shaping {learnt} needs a learner made for it; use robo-rm train-rl with learner=sac")


def describe_terms(settings: ShapingSettings, discount: float) -> list[list[str]]:
    """Rows (term, formula) of the reward to be learnt from, for the table at the start of a training."""
    rows = [["gold", "1 where the environment says success, summed with g^i within a decision"]]
    if settings.mode != "sparse":
        rows.append([settings.mode, MODES[settings.mode]])
        rows.append(["scale", f"{settings.scale:g}"])
    if settings.ensemble:
        rows.append(["ensemble", ENSEMBLE_RULES[settings.ensemble].format(pessimism=settings.pessimism)])
    if settings.occupancy:
        rows.append(
            [
                "occupancy",
                f"- {settings.occupancy:g} sigma (e^d - 1) / sqrt(X): leaving the demonstrations costs (ORPO)",
            ]
        )
    rows.append(["discount", f"{discount:g} for one environment step"])
    return rows


def variance_shares(terms: dict[str, Array]) -> dict[str, float]:
    """Each term's share of the sum of the terms' variances; 0 for all where nothing varies."""
    spread = {name: float(np.var(values)) for name, values in terms.items()}
    total = sum(spread.values())
    return {name: value / total if total > 0 else 0.0 for name, value in spread.items()}


def _finite(name: str, values: Any) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array.ravel()))[0])
        raise ConfigError(f"{name} of decision {place} of the batch is {array.ravel()[place]}; shaping needs numbers")
    return array
