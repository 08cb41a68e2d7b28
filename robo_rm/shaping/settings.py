"""How a learning reward is made, as plain settings, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

MODES: dict[str, str] = {
    "sparse": "gold alone",
    "pbrs": "gold + g^k F(h') - F(h), 0 at terminal states: the best policy stays what it is (Ng 1999)",
    "pbrs_centred": "pbrs with F - 1: slow progress is not punished, and what was never tried does not look better",
    "additive": "gold + F(h'): progress as a reward; pays for hovering",
    "difference": "gold + F(h') - F(h), undiscounted and paid at terminal states too",
    "gated": "gold, and the episode's gain in F at its end if gold there reached a threshold (G-RA)",
    "bounded": "gold + sigmoid of F(h') against F at the episode's start (PAR)",
    "multi_critic": "critics for gold and for F(h'); the actor follows the sum of their normalised advantages (SLIM)",
    "bilevel": "gold and F(h') in a blend that is learnt so that following it gains gold (BARFI)",
}

LEARNER_MODES: dict[str, tuple[str, ...]] = {
    "multi_critic": ("gold", "shaping"),
    "bilevel": ("gold", "shaping", "shaping_now"),
}
"""Modes of which one half is in the learner, and the terms that have critics of their own there."""
ENSEMBLE_RULES = {
    "worst": "the least progress that a member of the ensemble sees (WCO)",
    "lcb": "the mean progress of the ensemble less {pessimism:g} times its members' variance (UWO)",
}


@dataclass(frozen=True)
class ShapingSettings:
    """How the learning reward is made."""

    mode: str = "pbrs"
    """One of MODES."""
    scale: float = 1.0
    """Factor on the potential; the shaped reward itself is never clipped."""
    gate: float = 0.5
    """Gold from which a gated episode is paid its progress."""
    temperature: float = 0.1
    """Progress that the sigmoid of the bounded mode counts as one unit."""
    occupancy: float = 0.0
    """Weight of the chi-squared penalty on leaving the demonstrations (ORPO), in spreads of the reward; 0 for none."""
    ensemble: str = ""
    """Rule of a reward model that is an ensemble: worst (WCO) or lcb (UWO); empty for the rule it was trained with."""
    pessimism: float = 5.0
    """Weight of the members' variance in lcb."""
