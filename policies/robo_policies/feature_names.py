"""Names of the values of a feature, in whatever form LeRobot, or whoever wrote the data set, gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NamesError(ValueError):
    """Names that cannot be read; says what was found."""


def flat_names(names: Any) -> tuple[str, ...] | None:
    """The names in the order of the values; None where there are none.

    LeRobot's data sets have them as a list (v2.1, v3.0), as a list in a list, under a word for what they are
    (``{"motors": [...]}``, ``{"axes": [...]}``, or one such list for each arm), or as name -> place
    (``{"delta_x": 0}``).

    Raises:
        NamesError: they have another form, or the places are not 0, 1, 2, ...
    """
    found = _flat(names)
    return tuple(found) or None


def _flat(names: Any) -> list[str]:
    if names is None:
        return []
    if isinstance(names, str):
        return [names]
    if isinstance(names, Mapping):
        return _of_mapping(names)
    if isinstance(names, list | tuple):
        return [name for item in names for name in _item(item)]
    raise NamesError(f"its names are {names!r}, not a list")


def _item(item: Any) -> list[str]:
    if item is None or not isinstance(item, str | list | tuple | Mapping):
        raise NamesError(f"its names hold {item!r}, which is not a name")
    return _flat(item)


def _of_mapping(names: Mapping[Any, Any]) -> list[str]:
    values = list(names.values())
    if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return _by_place({value: name for name, value in names.items()}, len(names))
    if values and all(isinstance(value, str) for value in values) and all(_whole(key) for key in names):
        return _by_place({int(key): value for key, value in names.items()}, len(names))
    return [name for value in values for name in _flat(value)]


def _by_place(named: Mapping[int, Any], count: int) -> list[str]:
    if sorted(named) != list(range(count)):
        raise NamesError(f"the places of its names are {', '.join(map(str, sorted(named)))}, not 0 to {count - 1}")
    return [str(named[place]) for place in range(count)]


def _whole(key: Any) -> bool:
    return isinstance(key, int) or (isinstance(key, str) and key.isdigit())
