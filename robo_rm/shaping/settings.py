"""Settings of the learning reward, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

MODES: dict[str, str] = {
    "sparse": "task reward alone",
    "pbrs": "task reward + g^k Phi(h') - Phi(h), 0 at terminal states: optimal policies stay optimal (Ng 1999)",
    "pbrs_centred": "pbrs with Phi - 1: slow progress is not punished, and untried states do not look better",
    "additive": "task reward + Phi(h'): progress as a reward; pays for hovering",
    "difference": "task reward + Phi(h') - Phi(h), undiscounted and paid at terminal states too",
    "gated": "task reward, and the episode's gain in Phi at its end if the task reward reaches a threshold (G-RA)",
    "bounded": "task reward + sigmoid of Phi(h') against Phi at the episode's start (PAR)",
    "multi_critic": "critics for task reward and for Phi(h'); the actor follows their normalized advantages (SLIM)",
    "bilevel": "task reward and Phi(h') in a blend, learned so that following it increases task reward (BARFI)",
}

LEARNER_MODES: dict[str, tuple[str, ...]] = {
    "multi_critic": ("task", "shaping"),
    "bilevel": ("task", "shaping", "shaping_now"),
}
"""Modes that are partly implemented in the learner, and the terms that have critics of their own there."""
ENSEMBLE_RULES = {
    "worst": "the lowest progress that a member of the ensemble predicts (WCO)",
    "lcb": "the mean progress of the ensemble minus {pessimism:g} times its members' variance (UWO)",
}


@dataclass(frozen=True)
class ShapingSettings:
    """How the learning reward is composed."""

    mode: str = "pbrs"
    """How progress enters the reward: sparse (not at all), pbrs (policy-invariant), or another mode of the docs."""
    scale: float = 1.0
    """Factor on the potential; the shaped reward itself is never clipped."""
    gate: float = 0.5
    """Task reward from which a gated episode is paid its progress."""
    temperature: float = 0.1
    """Progress that the sigmoid of the bounded mode counts as one unit."""
    occupancy: float = 0.0
    """Weight of the chi-squared penalty on leaving the demonstrations (ORPO), in standard deviations of the reward; 0
    for none."""
    ensemble: str = ""
    """Rule of a reward model that is an ensemble: worst (WCO) or lcb (UWO); empty for the rule it was trained with."""
    pessimism: float = 5.0
    """Weight of the members' variance in lcb."""
