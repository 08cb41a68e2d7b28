"""What the launch files share: arguments that count only where they are given, over a file of parameters."""

from __future__ import annotations

from collections.abc import Mapping

from robo_hw.errors import HardwareError

_TRUTHS = {"true": True, "false": False}


def given(values: Mapping[str, str]) -> dict[str, bool | str]:
    """Parameters for a node out of launch arguments: those that are not empty; true and false as such."""
    return {name: _TRUTHS.get(value.lower(), value) for name, value in values.items() if value}


def remappings(text: str) -> list[tuple[str, str]]:
    """``from:=to`` pairs, separated by commas or spaces, as launch takes them.

    Raises:
        HardwareError: an entry has another form.
    """
    pairs = []
    for entry in text.replace(",", " ").split():
        source, arrow, target = entry.partition(":=")
        if not arrow or not source or not target:
            raise HardwareError(f"launch argument remap: {entry!r} is not of the form /from:=/to")
        pairs.append((source, target))
    return pairs
