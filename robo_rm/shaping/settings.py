"""How a learning reward is made, as plain settings, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

MODES: dict[str, str] = {
    "sparse": "gold alone",
    "pbrs": "gold + g^k F(h') - F(h), 0 at terminal states: the best policy stays what it is (Ng 1999)",
    "pbrs_centred": "pbrs with F - 1, for tasks that only success ends: slow progress is not punished",
    "additive": "gold + F(h'): progress as a reward; pays for hovering",
    "difference": "gold + F(h') - F(h), undiscounted and paid at terminal states too",
    "gated": "gold, and the episode's gain in F at its end if gold there reached a threshold (G-RA)",
    "bounded": "gold + sigmoid of F(h') against F at the episode's start (PAR)",
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
