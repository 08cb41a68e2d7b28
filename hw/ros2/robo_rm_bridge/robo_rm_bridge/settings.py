"""Node parameters as a table: name, default, what it means, and its range; wrong values are refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

from robo_hw.errors import HardwareError

if TYPE_CHECKING:
    from rclpy.node import Node


class SettingError(HardwareError, ValueError):
    """A parameter is missing or wrong; names it and what to give."""


@dataclass(frozen=True)
class Setting:
    """One parameter. ``low`` and ``high`` bound a number; ``choices`` lists the values of a text.

    A default of "" with ``required`` has to be given. ``live``: may be changed while the node runs.
    """

    name: str
    default: bool | int | float | str | list[str]
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    required: bool = False
    live: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows."""
        descriptor = ParameterDescriptor(description=self.description, read_only=not self.live)
        if self.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(repr(choice) for choice in self.choices)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                descriptor.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
            else:
                bounds = FloatingPointRange(from_value=float(self.low), to_value=float(self.high), step=0.0)
                descriptor.floating_point_range = [bounds]
        return descriptor


def declare(node: Node, settings: Iterable[Setting]) -> SimpleNamespace:
    """Declare every setting (once) and return their values as attributes; lists of texts lose their empty entries.

    Raises:
        SettingError: names the parameter, what is wrong and what to give.
    """
    values = SimpleNamespace()
    for setting in settings:
        try:
            if not node.has_parameter(setting.name):
                node.declare_parameter(setting.name, setting.default, setting.descriptor())
            value = node.get_parameter(setting.name).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise SettingError(
                f"parameter {setting.name}: {' '.join(str(error).split())}; {_wanted(setting)}"
            ) from None
        if isinstance(setting.default, list):
            value = [text for text in value if text]
        if setting.required and not value:
            raise SettingError(f"parameter {setting.name} is not set; give {setting.description}")
        if setting.choices and value not in setting.choices:
            raise SettingError(f"parameter {setting.name}: {value!r} is not known; {_wanted(setting)}")
        setattr(values, setting.name, value)
    return values


def refuse_removed(node: Node, removed: Mapping[str, str]) -> None:
    """Refuse parameters that there were, with what to do instead.

    Raises:
        SettingError: one of them is given.
    """
    for name in getattr(node, "_parameter_overrides", {}):
        if name in removed:
            raise SettingError(f"parameter {name} is not known any more; {removed[name]}")


def _wanted(setting: Setting) -> str:
    if setting.choices:
        return f"choose one of: {', '.join(repr(choice) for choice in setting.choices)}"
    kind = {float: "a number with a decimal point", int: "a whole number", bool: "true or false", str: "a text"}
    wanted = kind.get(type(setting.default), "a list of texts")
    between = f" between {setting.low:g} and {setting.high:g}" if setting.low is not None else ""
    return f"give {wanted}{between}: {setting.description}"
