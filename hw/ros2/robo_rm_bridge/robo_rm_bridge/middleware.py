"""Getting at ROS 2, and saying in one line why it is not available."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from robo_hw.errors import HardwareError

ROS_ROOT = Path("/opt/ros")
MESSAGES = (
    "builtin_interfaces",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "trajectory_msgs",
)
"""The interface packages that the nodes use."""


class RosMissingError(HardwareError):
    """ROS 2 cannot be used from this Python; says why and what to do."""


def distributions(root: Path = ROS_ROOT) -> list[str]:
    """Names of the ROS 2 distributions installed under ``root``."""
    return sorted(path.parent.name for path in root.glob("*/setup.bash"))


def explain_absence(
    environ: Mapping[str, str], search: Iterable[str], version: tuple[int, int], root: Path = ROS_ROOT
) -> str:
    """Why ``import rclpy`` finds nothing or fails: another Python, not sourced, or not installed.

    ``search``: the module search path; ``version``: (major, minor) of this Python.
    """
    here = f"{version[0]}.{version[1]}"
    folders = [Path(path) for path in [*search, *environ.get("PYTHONPATH", "").split(os.pathsep)] if path]
    present = any((folder / "rclpy" / "__init__.py").is_file() for folder in folders)
    built_for = _built_for(folders) or _built_for_sourced(environ)
    if built_for and built_for != here:
        return (
            f"rclpy is there, but built for Python {built_for} and this is Python {here}: start the node with "
            f"python{built_for} (ros2 run does), outside of other virtual environments"
        )
    if present:
        return f"rclpy is there, but incomplete for Python {here}: reinstall ros-{_distro(environ, root)}-rclpy"
    found = distributions(root)
    if found and not environ.get("AMENT_PREFIX_PATH"):
        return f"ROS 2 {' and '.join(found)} is installed but not sourced: run `source {root / found[-1]}/setup.bash`"
    if found:
        return (
            f"ROS 2 {environ.get('ROS_DISTRO', found[-1])} is sourced, but without rclpy: install "
            f"ros-{_distro(environ, root)}-rclpy"
        )
    return "rclpy is not installed: install ROS 2 Humble or Jazzy (docs.ros.org), then source its setup.bash"


def explain_middleware(error: BaseException, environ: Mapping[str, str]) -> str:
    """Why ``rclpy.init`` fails: as a rule no DDS implementation can be loaded."""
    asked = environ.get("RMW_IMPLEMENTATION")
    name = f"RMW_IMPLEMENTATION={asked}" if asked else "no RMW_IMPLEMENTATION is set"
    package = (asked or "rmw_fastrtps_cpp").replace("_", "-")
    distro = environ.get("ROS_DISTRO", "$ROS_DISTRO")
    cause = " ".join(str(error).split())[:160]
    fix = f"install ros-{distro}-{package}, or unset RMW_IMPLEMENTATION to use the default"
    return f"no middleware ({name}): {fix}; {cause}"


def require_ros() -> None:
    """Import rclpy and the messages, and load the middleware.

    Raises:
        RosMissingError: one line with the cause: not installed, another Python, not sourced, no middleware, a message
            package missing.
    """
    absent = absent_middleware(os.environ)
    if absent is not None:  # rclpy would end the process without a word about what to do
        raise RosMissingError(explain_middleware(absent, os.environ))
    try:
        import rclpy
        from rclpy.utilities import get_rmw_implementation_identifier
    except (ImportError, OSError) as error:
        if _blames_middleware(error):
            raise RosMissingError(explain_middleware(error, os.environ)) from error
        raise RosMissingError(explain_absence(os.environ, sys.path, sys.version_info[:2])) from error
    missing = missing_messages(importlib.util.find_spec)
    if missing:
        names = " ".join(f"ros-{_distro(os.environ, ROS_ROOT)}-{name.replace('_', '-')}" for name in missing)
        raise RosMissingError(f"message packages are missing: {', '.join(missing)}; install {names}")
    try:
        get_rmw_implementation_identifier()
        context = rclpy.Context()
        rclpy.init(args=[], context=context)
        rclpy.shutdown(context=context)
    except (RuntimeError, OSError) as error:
        raise RosMissingError(explain_middleware(error, os.environ)) from error


def absent_middleware(environ: Mapping[str, str]) -> OSError | None:
    """Why the library that RMW_IMPLEMENTATION asks for cannot be loaded; None where it can, or none is asked for."""
    asked = environ.get("RMW_IMPLEMENTATION")
    if not asked:
        return None
    folders = [Path(folder) for folder in environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    if any(next(folder.glob(f"lib{asked}*"), None) for folder in folders):
        return None
    try:
        ctypes.CDLL(f"lib{asked}.so")
    except OSError as error:
        return error
    return None


def missing_messages(find: Callable[[str], object | None]) -> list[str]:
    """The interface packages that ``find`` (as ``importlib.util.find_spec``) does not know."""
    return [name for name in MESSAGES if find(name) is None]


def _blames_middleware(error: BaseException) -> bool:
    return "rmw" in str(error).lower() or "middleware" in str(error).lower()


def _built_for(folders: Iterable[Path]) -> str | None:
    """The Python version that the extension of an rclpy on the path was built for."""
    for folder in folders:
        for library in folder.glob("rclpy/_rclpy_pybind11.cpython-*"):
            match = re.search(r"cpython-3(\d+)", library.name)
            if match:
                return f"3.{match.group(1)}"
    return None


def _built_for_sourced(environ: Mapping[str, str]) -> str | None:
    """The Python version of the ROS that is sourced, from the folder its modules stand in."""
    for prefix in environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if not prefix:
            continue
        for module in sorted(Path(prefix).glob("lib/python3.*/site-packages/rclpy")):
            return module.parent.parent.name[len("python") :]
    return None


def _distro(environ: Mapping[str, str], root: Path) -> str:
    found = distributions(root)
    return environ.get("ROS_DISTRO") or (found[-1] if found else "jazzy")
