"""Distances between reward functions that ignore what cannot change the best policy, for tabular environments.

A reward is an array R[s, a, s'] (S, A, S). Both distances are 0 for rewards that differ by positive scale and by
potential shaping, and both respect episode ends: from a terminal state nothing follows, so its value and its potential
are 0 and shaping pays g (1 - done(s')) Phi(s') - Phi(s). A version that ignores ``done`` calls a reward with a wrong
potential at the end harmless, although it changes what the best policy is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def epic_canonical(
    reward: npt.ArrayLike,
    discount: float,
    terminal: npt.ArrayLike | None = None,
    states: npt.ArrayLike | None = None,
    actions: npt.ArrayLike | None = None,
) -> Array:
    """Canonically shaped reward (EPIC, arXiv 2006.13900, definition 4.1), (S, A, S).

    With S, S' drawn from ``states`` and A from ``actions``::

        C(R)(s, a, s') = R(s, a, s') + E[g R(s', A, S') - R(s, A, S') - g R(S, A, S')]

    This is R + g V(s') - V(s) with V(s) the value where every step leads to a fresh draw from ``states``:
    V(s) = E[R(s, A, S') + g V(S')] gives V = f + g / (1 - g) E[f], f(s) = E[R(s, A, S')]. That form extends to
    episodes that end: V is 0 in terminal states, and with q the chance that a draw is not terminal,

        V(s) = f(s) + g / (1 - g q) E[f(S) (1 - done(S))]    where s is not terminal.

    Without terminal states it is the formula above, to rounding.

    Args:
        reward: (S, A, S).
        discount: g, in [0, 1).
        terminal: (S,) booleans; None: no state ends the episode.
        states: (S,) weights of the draw of states; None: all alike.
        actions: (A,) weights of the draw of actions; None: all alike.
    """
    table, live = _checked(reward, discount, terminal)
    state_weight, action_weight = _weights(states, len(live)), _weights(actions, table.shape[1])
    leaving = np.einsum("saz,a,z->s", table, action_weight, state_weight)
    weight = state_weight * live
    value = live * (leaving + discount / (1 - discount * weight.sum()) * (weight @ leaving))
    return np.asarray(table + discount * value[None, None, :] - value[:, None, None])


def epic_distance(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    discount: float,
    terminal: npt.ArrayLike | None = None,
    states: npt.ArrayLike | None = None,
    actions: npt.ArrayLike | None = None,
    coverage: npt.ArrayLike | None = None,
) -> float:
    """EPIC distance sqrt((1 - r) / 2), r Pearson's correlation of the two canonical rewards, in [0, 1].

    Args:
        first: (S, A, S); ``second`` likewise.
        second: (S, A, S).
        discount: g, in [0, 1).
        terminal: (S,) booleans; transitions out of terminal states do not count.
        states: (S,) weights of the draw of states in the canonical form.
        actions: (A,) weights of the draw of actions in the canonical form.
        coverage: (S, A, S) weights of the transitions that are compared; None: drawn like states and actions.

    Returns:
        NaN where one of the rewards is constant in its canonical form: it prefers nothing.
    """
    live = _checked(first, discount, terminal)[1]
    a = epic_canonical(first, discount, terminal, states, actions)
    b = epic_canonical(second, discount, terminal, states, actions)
    if a.shape != b.shape:
        raise ValueError(f"the two rewards differ in shape: {a.shape} and {b.shape}")
    if coverage is None:
        state_weight, action_weight = _weights(states, a.shape[0]), _weights(actions, a.shape[1])
        cover = state_weight[:, None, None] * action_weight[None, :, None] * state_weight[None, None, :]
    else:
        cover = np.asarray(coverage, dtype=np.float64)
        if cover.shape != a.shape or (cover < 0).any():
            raise ValueError(f"coverage must be {a.shape} weights of 0 or more, not {cover.shape}")
    cover = cover * live[:, None, None]
    if cover.sum() <= 0:
        raise ValueError("no transition is covered")
    cover = cover / cover.sum()
    a, b = a - (cover * a).sum(), b - (cover * b).sum()
    deviations = np.sqrt((cover * a * a).sum() * (cover * b * b).sum())
    scale = np.sqrt((cover * np.square(first)).sum() * (cover * np.square(second)).sum())
    if deviations <= 1e-12 * max(scale, 1e-300):
        return float("nan")
    correlation = float((cover * a * b).sum() / deviations)
    return float(np.sqrt(max(0.0, (1 - min(correlation, 1.0)) / 2)))


def starc_canonical(
    reward: npt.ArrayLike,
    transitions: npt.ArrayLike,
    discount: float,
    terminal: npt.ArrayLike | None = None,
    policy: npt.ArrayLike | None = None,
) -> Array:
    """Value-adjusted levelling (STARC, arXiv 2309.15257), (S, A)::

        c(s, a) = E_S'[R(s, a, S') - V(s) + g V(S')]

    with V the value of ``policy`` under ``transitions``, and 0 in terminal states.

    Args:
        reward: (S, A, S).
        transitions: (S, A, S) chances; rows out of terminal states are not used.
        discount: g, in [0, 1).
        terminal: (S,) booleans.
        policy: (S, A) chances; None: all actions alike.
    """
    table, live = _checked(reward, discount, terminal)
    probability = np.asarray(transitions, dtype=np.float64)
    if probability.shape != table.shape:
        raise ValueError(f"transitions have shape {probability.shape}, the reward {table.shape}")
    if not np.allclose(probability[live > 0].sum(axis=-1), 1.0):
        raise ValueError("the chances of the next states must sum to 1 for each state and action")
    count, choices = table.shape[:2]
    chance = np.full((count, choices), 1.0 / choices) if policy is None else np.asarray(policy, dtype=np.float64)
    expected = (probability * table).sum(axis=-1)
    step = np.einsum("sa,saz->sz", chance, probability) * live[:, None] * live[None, :]
    value = np.linalg.solve(np.eye(count) - discount * step, (chance * expected).sum(axis=-1) * live)
    ahead = np.einsum("saz,z->sa", probability, value * live)
    return np.asarray((expected - value[:, None] + discount * ahead) * live[:, None])


def starc_distance(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    transitions: npt.ArrayLike,
    discount: float,
    terminal: npt.ArrayLike | None = None,
    policy: npt.ArrayLike | None = None,
) -> float:
    """Half the distance of the two canonical rewards, each divided by its own norm, in [0, 1].

    A reward that prefers nothing (its canonical form is 0) stays 0: it is at 1/2 from every other and at 0 from
    another of its kind. Arguments as in `starc_canonical`.
    """
    a = starc_canonical(first, transitions, discount, terminal, policy)
    b = starc_canonical(second, transitions, discount, terminal, policy)
    return float(np.linalg.norm(_unit(a, first) - _unit(b, second)) / 2)


def _unit(canonical: Array, reward: npt.ArrayLike) -> Array:
    norm = float(np.linalg.norm(canonical))
    # Shaping cancels to rounding only: what is left of a reward of pure shaping is noise, not a preference.
    if norm <= 1e-10 * max(float(np.abs(np.asarray(reward)).max()), 1e-300) * canonical.size:
        return np.zeros_like(canonical)
    return canonical / norm


def _checked(reward: npt.ArrayLike, discount: float, terminal: npt.ArrayLike | None) -> tuple[Array, Array]:
    table = np.asarray(reward, dtype=np.float64)
    if table.ndim != 3 or table.shape[0] != table.shape[2]:
        raise ValueError(f"a reward is an array (states, actions, states), not {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("a reward holds NaN or infinity")
    if not 0 <= discount < 1:
        raise ValueError(f"discount={discount} must be at least 0 and below 1")
    ends = np.zeros(len(table), dtype=bool) if terminal is None else np.asarray(terminal, dtype=bool)
    if ends.shape != (len(table),):
        raise ValueError(f"terminal has shape {ends.shape} for {len(table)} states")
    return table, (~ends).astype(np.float64)


def _weights(weights: npt.ArrayLike | None, count: int) -> Array:
    if weights is None:
        return np.full(count, 1.0 / count)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (count,) or (array < 0).any() or array.sum() <= 0:
        raise ValueError(f"a draw needs {count} weights of 0 or more, not all 0")
    return np.asarray(array / array.sum())
