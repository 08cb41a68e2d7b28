"""Compose the learning reward from task reward and potential: the policy-invariant way, and the alternatives.

``pbrs`` preserves the optimal policies; the others do not in general, and are there for comparison. Modes that change
the learner as well (one critic per term, an adapted blend, a penalty towards the demonstrations) compose their reward
here and have their other half in the learner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError
from robo_rm.shaping.potential_based import check_discount, shaped_reward
from robo_rm.shaping.settings import ENSEMBLE_RULES, LEARNER_MODES, MODES, ShapingSettings

Array: TypeAlias = npt.NDArray[np.float64]
Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Transitions:
    """A batch of macro-actions, as far as rewards depend on them; all arrays (B,).

    Attributes:
        task_reward: discounted sum of the task reward over the macro-action's steps.
        potential: Phi(h) where it was chosen.
        next_potential: Phi(h') where it ended, of the final observation for a truncated episode.
        start_potential: Phi at the start of its episode.
        terminated: the task ended there.
        truncated: the time ran out there.
        steps: environment steps it took.
    """

    task_reward: Floats
    potential: Floats
    next_potential: Floats
    start_potential: Floats
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]


def compose_reward(settings: ShapingSettings, transitions: Transitions, discount: float) -> Array:
    """(B,) the reward to learn from.

    Raises:
        ConfigError: unknown mode, a bad setting, NaN or infinity in what the mode uses.
    """
    terms = reward_terms(settings, transitions, discount)
    return np.asarray(sum(terms.values()), dtype=np.float64)


def reward_terms(settings: ShapingSettings, transitions: Transitions, discount: float) -> dict[str, Array]:
    """The terms that `compose_reward` adds up, by name: ``task`` and, except for sparse, ``shaping``; each (B,)."""
    check_settings(settings)
    check_discount(discount)
    task = _finite("task reward", transitions.task_reward)
    if settings.mode == "sparse":
        return {"task": task}
    before = settings.scale * _finite("potential", transitions.potential)
    # What a model says of a terminal state may be anything; only modes that (wrongly) use it read it.
    after = settings.scale * np.asarray(transitions.next_potential, dtype=np.float64)
    return {"task": task, "shaping": _shaping(settings, transitions, task, before, after, discount)}


def _shaping(
    settings: ShapingSettings, transitions: Transitions, task: Array, before: Array, after: Array, discount: float
) -> Array:
    zero = np.zeros_like(task)
    if settings.mode in ("pbrs", "pbrs_centred"):
        shift = settings.scale if settings.mode == "pbrs_centred" else 0.0
        return shaped_reward(
            zero, before - shift, after - shift, transitions.terminated, discount, transitions.steps
        )  # fmt: skip
    after = _finite("next potential", after)
    if settings.mode == "additive" or settings.mode in LEARNER_MODES:
        return after
    if settings.mode == "difference":
        return np.asarray(after - before)
    start = settings.scale * _finite("start potential", transitions.start_potential)
    if settings.mode == "gated":
        paid = (transitions.terminated | transitions.truncated) & (task >= settings.gate)
        return np.where(paid, after - start, zero)
    return np.asarray(1.0 / (1.0 + np.exp(-(after - start) / (settings.scale * settings.temperature))))


def value_bounds(settings: ShapingSettings, potential: npt.ArrayLike) -> tuple[Array, Array] | None:
    """Lower and upper bound (B,) of a state's value, given its potential (B,); None for modes without bounds.

    The task reward is paid once, 1 at most, where the task ends, so without shaping 0 <= V <= 1. Potential-based
    shaping moves every value by -Phi(h) (Wiewiora 2003), hence

        -Phi(h) <= V_shaped(h) <= 1 - Phi(h)

    A critic outside that interval is wrong, and clipping it does not change which policy is optimal.
    """
    if settings.occupancy or settings.mode not in ("sparse", "pbrs", "pbrs_centred"):
        return None
    phi = np.zeros_like(np.asarray(potential, dtype=np.float64))
    if settings.mode != "sparse":
        shift = settings.scale if settings.mode == "pbrs_centred" else 0.0
        phi = settings.scale * _finite("potential", potential) - shift
    return -phi, 1.0 - phi


def check_settings(settings: ShapingSettings) -> None:
    """Raise ConfigError for an unknown mode, or a number out of range."""
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
    """Raise ConfigError for modes that a reward alone cannot express, since one half of them is in the learner."""
    check_settings(settings)
    learned = settings.mode if settings.mode in LEARNER_MODES else ("occupancy" if settings.occupancy else "")
    if learned:
        raise ConfigError(f"shaping {learned} needs a learner made for it; use robo-rm train-rl with learner=sac")


def describe_terms(settings: ShapingSettings, discount: float) -> list[list[str]]:
    """Rows (term, formula) of the learning reward, for the table at the start of a training."""
    rows = [["task reward", "1 where the environment reports success, summed with g^i within a macro-action"]]
    if settings.mode != "sparse":
        rows.append([settings.mode, MODES[settings.mode]])
        rows.append(["scale", f"{settings.scale:g}"])
    if settings.ensemble:
        rows.append(["ensemble", ENSEMBLE_RULES[settings.ensemble].format(pessimism=settings.pessimism)])
    if settings.occupancy:
        penalty = f"- {settings.occupancy:g} sigma (e^d - 1) / sqrt(X): leaving the demonstrations costs (ORPO)"
        rows.append(["occupancy", penalty])
    rows.append(["discount", f"{discount:g} for one environment step"])
    return rows


def variance_fractions(terms: dict[str, Array]) -> dict[str, float]:
    """Each term's fraction of the sum of the terms' variances; 0 for all where nothing varies."""
    variances = {name: float(np.var(values)) for name, values in terms.items()}
    total = sum(variances.values())
    return {name: value / total if total > 0 else 0.0 for name, value in variances.items()}


def _finite(name: str, values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array.ravel()))[0])
        raise ConfigError(f"{name} of transition {index} of the batch is {array.ravel()[index]}; it must be finite")
    return array
