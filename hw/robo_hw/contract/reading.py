"""Reads a YAML mapping key by key and collects every problem, so that a file can be fixed in one go."""

from __future__ import annotations

import difflib
import math
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from robo_hw.errors import ContractError

MAX_BYTES = 256 * 1024
"""A contract is a page or two; anything longer is not one."""
REQUIRED: object = object()
TODO = "TODO"
"""What `robo-rm make-contract` writes where no file says a value."""
Record = TypeVar("Record")


def given(what: str, **rules: object) -> Any:
    """A field of a dataclass that ``Reader.record`` reads: what to give, and the arguments of the read of its type."""
    return field(metadata={"what": what, "rules": rules})


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: plain YAML silently keeps the last limit."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        """Build the mapping, refusing repeated keys."""
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = key_node.value
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_file(path: Path, what: str, kind: str, most: int = MAX_BYTES, fix: str = "") -> bytes:
    """The content of a file that a contract is made from.

    Raises:
        ContractError: it is missing or too long to be a ``kind``; names ``what`` it is and says the ``fix``.
    """
    try:
        if path.stat().st_size > most:
            raise ContractError(f"{what} {path}: more than {most} bytes; this is not a {kind}")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ContractError(f"{what} {path}: cannot be read ({reason}){fix and '; ' + fix}") from None


def load_yaml(path: Path) -> object:
    """The content of a YAML file, read with the safe loader.

    Raises:
        ContractError: the file is missing, too long, not text, or not YAML.
    """
    data = read_file(path, "contract", "contract file", fix="give the path of a YAML file")
    try:
        # _UniqueKeyLoader is the safe loader, made stricter.
        return yaml.load(data.decode("utf-8"), Loader=_UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise ContractError(f"contract {path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ContractError(f"contract {path}: not valid YAML: {' '.join(str(error).split())}") from None


class Reader:
    """One mapping of the file. A read that fails records the problem and returns a stand-in of the right type."""

    def __init__(self, data: object, where: str, problems: list[str]) -> None:
        self._where = where
        self._problems = problems
        self._asked: set[str] = set()
        if not isinstance(data, dict):
            problems.append(f"{where or 'the file'}: a mapping of keys to values is needed, found {_kind(data)}")
            data = {}
            self._asked_all = True
        else:
            self._asked_all = False
        self._data: dict[object, object] = data

    def path(self, key: str) -> str:
        """The key's full path, for messages."""
        return f"{self._where}.{key}" if self._where else key

    def problem(self, key: str, text: str) -> None:
        """Record a problem with one key."""
        self._problems.append(f"{self.path(key)}: {text}")

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self._data.get(key) is not None

    def ignore(self, key: str) -> None:
        """Count a key as known without reading it."""
        self._asked.add(key)

    def record(self, kind: type[Record], defaults: dict[str, object] | None = None, **known: object) -> Record:
        """A dataclass whose fields say how they are read; ``defaults`` that depend on the rest of the file."""
        reads: dict[object, Any] = {"float": self.number, "int": self.whole, "str": self.text, "bool": self.flag}
        for one in fields(kind):  # type: ignore[arg-type]
            if one.name not in known:
                rules = dict(one.metadata["rules"])
                if defaults and one.name in defaults:
                    rules["default"] = defaults[one.name]
                known[one.name] = reads[one.type](one.name, one.metadata["what"], **rules)
        return kind(**known)

    def _get(self, key: str, default: object, what: str) -> object:
        self._asked.add(key)
        value = self._data.get(key)
        if value == TODO or (isinstance(value, list) and TODO in value):
            self.problem(key, f"TODO; give {what or 'a value'}")
            return None if default is REQUIRED else default
        if value is None:
            if default is REQUIRED and not self._asked_all:
                self.problem(key, f"missing; give {what}")
            return None if default is REQUIRED else default
        return value

    def number(
        self,
        key: str,
        what: str,
        default: object = REQUIRED,
        above: float | None = None,
        least: float | None = None,
        most: float | None = None,
    ) -> float:
        """A finite number, optionally ``> above``, ``>= least``, ``<= most``."""
        value = self._get(key, default, what)
        if value is None or (value is default and value != value):
            return math.nan  # missing and recorded, or a default that follows from something already recorded
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.problem(key, f"{value!r} is not a number; give {what}")
            return math.nan
        try:
            value = float(value) + 0.0  # no negative zero: two spellings of one number
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            self.problem(key, f"{value} is not finite; give {what}")
            return math.nan
        if above is not None and not value > above:
            self.problem(key, f"{value:g} must be above {above:g}; give {what}")
        elif least is not None and not value >= least:
            self.problem(key, f"{value:g} must be at least {least:g}; give {what}")
        elif most is not None and not value <= most:
            self.problem(key, f"{value:g} must be at most {most:g}; give {what}")
        return value

    def whole(self, key: str, what: str, default: object = REQUIRED, least: int = 1, most: int = 1_000_000) -> int:
        """An integer between ``least`` and ``most``."""
        value = self._get(key, default, what)
        if value is None:
            return least
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(key, f"{value!r} is not a whole number; give {what}")
            return least
        if not least <= value <= most:
            self.problem(key, f"{value} must be between {least} and {most}; give {what}")
            return least
        return value

    def text(self, key: str, what: str, default: object = REQUIRED, choices: tuple[str, ...] = ()) -> str:
        """A non-empty string, optionally one of ``choices``."""
        value = self._get(key, default, what)
        if value is None:
            return ""
        if not isinstance(value, str) or not value.strip():
            self.problem(key, f"{value!r} is not a text; give {what}")
            return ""
        if choices and value not in choices:
            near = difflib.get_close_matches(value, choices, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self.problem(key, f"{value!r} is not one of {', '.join(choices)}{hint}")
        return value

    def flag(self, key: str, what: str, default: object = REQUIRED) -> bool:
        """True or false."""
        value = self._get(key, default, what)
        if value is not None and not isinstance(value, bool):
            self.problem(key, f"{value!r} is neither true nor false; give {what}")
        return bool(value)

    def interval(self, key: str, what: str) -> tuple[float, float]:
        """Two finite numbers, the first below the second."""
        value = self._get(key, REQUIRED, what)
        if value is None:
            return (math.nan, math.nan)
        if not isinstance(value, list) or len(value) != 2:
            self.problem(key, f"{value!r} is not [low, high]; give {what}")
            return (math.nan, math.nan)
        for number in value:
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < 1e300:
                self.problem(key, f"{number!r} is not a finite number; give {what}")
                return (math.nan, math.nan)
        low, high = float(value[0]), float(value[1])
        if not low < high:
            self.problem(key, f"low {low:g} must be below high {high:g}; give {what}")
        return low, high

    def pair(self, key: str, what: str) -> tuple[float, float] | None:
        """Two finite numbers that differ, in either order; None where the key is not there."""
        value = self._get(key, None, what)
        if value is None:
            return None
        numbers = value if isinstance(value, list) else []
        if len(numbers) != 2 or any(
            isinstance(n, bool) or not isinstance(n, (int, float)) or not math.isfinite(n) for n in numbers
        ):
            self.problem(key, f"{value!r} is not two numbers; give {what}")
            return None
        first, second = float(numbers[0]), float(numbers[1])
        if first == second:
            self.problem(key, f"both ends are {first:g}; give {what}")
            return None
        return first, second

    def texts(self, key: str, what: str, default: object = REQUIRED) -> tuple[str, ...]:
        """A list of non-empty strings."""
        value = self._get(key, default, what)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item.strip() for item in value):
            self.problem(key, f"{value!r} is not a list of texts; give {what}")
            return ()
        return tuple(value)

    def raw(self, key: str) -> object:
        """The value as it is, for whoever checks it."""
        return self._get(key, None, "")

    def section(self, key: str, what: str, default: object = REQUIRED) -> Reader:
        """A mapping below this one."""
        value = self._get(key, default, what)
        missing = value is None
        reader = Reader({} if missing else value, self.path(key), self._problems)
        reader._asked_all = reader._asked_all or missing  # its keys are not reported one by one
        return reader

    def items(self, key: str, what: str, empty: bool = False) -> list[Reader]:
        """A list of mappings."""
        value = self._get(key, [] if empty else REQUIRED, what)
        if value is None:
            return []
        if not isinstance(value, list) or not (value or empty):
            self.problem(key, f"a list is needed, found {_kind(value)}; give {what}")
            return []
        return [Reader(item, f"{self.path(key)}[{i}]", self._problems) for i, item in enumerate(value)]

    def one_or_many(self, key: str, what: str) -> list[Reader]:
        """A mapping, or a list of them."""
        if isinstance(self._data.get(key), list):
            return self.items(key, what)
        return [self.section(key, what)]

    def scalars(self, key: str, what: str) -> tuple[bool | int | float | str, ...]:
        """A list of one or more flags, numbers or texts."""
        value = self._get(key, REQUIRED, what)
        if value is None:
            return ()
        items = value if isinstance(value, list) else []
        plain = all(isinstance(item, (bool, int, float, str)) for item in items)
        if not items or not plain or any(isinstance(item, float) and not math.isfinite(item) for item in items):
            self.problem(key, f"{value!r} is not a list of flags, numbers or texts; give {what}")
            return ()
        return tuple(items)

    def finish(self) -> None:
        """Record keys that nobody asked for: a misspelt optional key must not be lost in silence."""
        for key in self._data:
            if key not in self._asked:
                near = difflib.get_close_matches(str(key), sorted(self._asked), 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(self._asked))}"
                self.problem(str(key), f"unknown key; {hint}")


def _kind(value: object) -> str:
    return "nothing" if value is None or value in ({}, []) else f"{type(value).__name__} {str(value)[:40]!r}"
