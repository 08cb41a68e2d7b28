"""Message types by name and values by the path of their field, for topics that only a contract knows."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Protocol, cast

from robo_hw.errors import HardwareError

_STEP = re.compile(r"(\w+)(?:\[(\d+)\])?")


class RosMessage(Protocol):
    """A message class that rosidl generated."""

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        """Field -> type."""


def message_type(name: str, key: str) -> type[RosMessage]:
    """The class of ``pkg/msg/Type``; ``key`` says where the name stands, for errors.

    Raises:
        HardwareError: the name has another form, its package is not installed or has no such message.
    """
    package, _, rest = name.partition("/")
    kind = rest.rpartition("/")[2]
    if not package or not kind or rest not in (kind, f"msg/{kind}"):
        raise HardwareError(f"{key}: {name!r} is not a message type; give pkg/msg/Type, such as std_msgs/msg/Bool")
    try:
        module = importlib.import_module(f"{package}.msg")
    except ImportError as error:
        raise HardwareError(
            f"{key}: the package of {name} cannot be imported ({error}); install "
            f"ros-$ROS_DISTRO-{package.replace('_', '-')} or source the workspace that has it"
        ) from None
    if not hasattr(module, kind):
        raise HardwareError(f"{key}: {package} has no message {kind}; ros2 interface list shows what there is")
    return cast(type[RosMessage], getattr(module, kind))


def getter(kind: type[RosMessage], path: str, key: str) -> Callable[[object], object]:
    """A function from a message to the value of its field, such as ``data`` or ``status[0].level``.

    The function gives None where a list is too short. Raises:
        HardwareError: the message has no such field.
    """
    steps: list[tuple[str, int | None]] = []
    for part in path.split("."):
        match = _STEP.fullmatch(part)
        if match is None:
            raise HardwareError(f"{key}: {path!r} is not a field; give a name such as data, or status[0].level")
        steps.append((match[1], None if match[2] is None else int(match[2])))
    fields = kind.get_fields_and_field_types()
    if steps[0][0] not in fields:
        raise HardwareError(f"{key}: {kind.__name__} has no field {steps[0][0]!r}; it has {', '.join(fields)}")

    def value(message: object) -> object:
        found = message
        for name, index in steps:
            found = getattr(found, name, None)
            if index is not None:
                found = found[index] if found is not None and index < len(found) else None
        return int.from_bytes(found, "big") if isinstance(found, bytes) else found

    return value
