"""What this machine has for the job: device, rendering, optional parts, and the fix for what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Finding:
    """One row of ``robo-rm info``."""

    part: str
    found: str
    fix: str = ""


def examine_machine() -> list[Finding]:
    """Look at Python, cores, memory, disk, device, rendering and the optional parts."""
    return [
        Finding("robo-rm", _version("robo-rm") or "not installed", ""),
        Finding("python", platform.python_version()),
        Finding("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())),
        Finding("memory", _memory()),
        Finding("disk free here", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB"),
        _torch_device(),
        _distribution("mujoco", "sim", "simulation: record, eval-policy, demo"),
        _distribution("gymnasium", "sim", "simulation: record, eval-policy, demo"),
        _distribution("mink", "sim", "scripted experts: record, demo"),
        _distribution("metaworld", "envs", "environments metaworld/<task>: record, eval-policy"),
        _distribution("gymnasium-robotics", "envs", "environments gym/<id>: eval-policy"),
        _distribution("gym-aloha", "envs", "environments gym/gym_aloha/<id>: eval-policy"),
        _rendering(),
        _distribution("lerobot", "lerobot", "policies: train-policy, demo"),
        _rclpy(),
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _distribution(name: str, extra: str, used_for: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(name, "missing", f"pip install 'robo-rm[{extra}]' (for {used_for})")
    return Finding(name, version)


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return "unknown"


def _torch_device() -> Finding:
    version = _version("torch")
    if version is None:
        return Finding("torch", "missing", "pip install torch")
    import torch

    if torch.cuda.is_available():
        return Finding("torch", f"{version}, {torch.cuda.get_device_name(0)}")
    return Finding("torch", f"{version}, CPU with {torch.get_num_threads()} threads", "")


def _rendering() -> Finding:
    if _version("mujoco") is None:
        return Finding("rendering", "not tried", "install mujoco first")
    from robo_policies.rendering import probe_gl

    backend, fix = probe_gl()
    return Finding("rendering", backend or "none", fix)


def _rclpy() -> Finding:
    # Only looked for: importing rclpy is the ROS package's business.
    if importlib.util.find_spec("rclpy") is not None:
        return Finding("ROS 2 (rclpy)", f"found, {os.environ.get('ROS_DISTRO', 'distribution unknown')}")
    fix = "only for a robot: source /opt/ros/<distribution>/setup.bash in this shell"
    return Finding("ROS 2 (rclpy)", "not found", fix)
