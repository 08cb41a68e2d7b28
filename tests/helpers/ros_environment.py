"""A Python that has ROS 2: the user's own (``ROBO_RM_ROS_PYTHON``), or unofficial wheels in a virtual environment.

It is made once, in ``.venvs/ros``. Run as a script it makes the environment and prints the path of its Python.

Nothing of the project depends on these wheels; users have the rclpy of their distribution.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints" / f"py{sys.version_info[0]}{sys.version_info[1]}.txt"
FOLDER = ROOT / ".venvs" / "ros"
PACKAGES = (
    "ros-jazzy-rclpy[fastrtps]",
    "ros-jazzy-diagnostic-msgs",
    "ros-jazzy-lifecycle-msgs",
    "ros-jazzy-sensor-msgs",
    "ros-jazzy-std-msgs",
    "ros-jazzy-std-srvs",
    "ros-jazzy-test-msgs",
    "ros-jazzy-trajectory-msgs",
)
_BRIDGE = ROOT / "hw" / "ros2" / "robo_rm_bridge"
_LEFT_OUT = ("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "AMENT_PREFIX_PATH")


class RosUnavailableError(Exception):
    """No Python with ROS can be had here; says why."""


def ros_python(folder: Path = FOLDER) -> Path:
    """The path of a Python with rclpy, the bridge and everything of this environment; made on first use (20 s).

    Raises:
        RosUnavailableError: the wheels cannot be installed, or what is installed does not work.
    """
    own = os.environ.get("ROBO_RM_ROS_PYTHON")
    if own:
        return Path(own)
    python = folder / "bin" / "python"
    stamp = folder / "ready"
    recipe = hashlib.sha256(repr((PACKAGES, sys.version, str(_BRIDGE), sys.prefix)).encode()).hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "ros.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one test run share it
        if stamp.is_file() and stamp.read_text() == recipe:
            return python
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # The same numpy on both sides: the rest of this environment is seen from there.
        _run([*install, "-c", str(CONSTRAINTS), *PACKAGES], "install the ROS wheels")
        site = next(folder.glob("lib/python3.*/site-packages"))
        here = next(Path(sys.prefix).glob("lib/python3.*/site-packages"))
        # At the end of the path: ROS's own packages come first.
        (site / "zz_robo_rm.pth").write_text(f"{_BRIDGE}\nimport site; site.addsitedir({str(here)!r})\n")
        _run([str(python), "-c", "import rclpy, robo_rm_bridge, robo_hw; rclpy.init(); rclpy.shutdown()"], "start ROS")
        stamp.write_text(recipe)
    return python


def colcon(folder: Path = ROOT / ".venvs" / "colcon") -> list[str]:
    """The colcon command: the system's (Debian's python3-colcon-ros), or one in a virtual environment made once.

    Raises:
        RosUnavailableError: it cannot be installed.
    """
    own = shutil.which("colcon")
    if own:
        return [own]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "colcon.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
            install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            # Newer setuptools have no `setup.py install`, which colcon calls.
            _run([*install, "colcon-core", "colcon-ros", "setuptools<80"], "install colcon")
            (folder / "ready").touch()
    return [str(folder / "bin" / "colcon")]


def ros_environ(domain: int | None = None) -> dict[str, str]:
    """Environment variables for a process with ROS: nothing of this Python's, traffic on loopback only."""
    environ = {key: value for key, value in os.environ.items() if key not in _LEFT_OUT}
    environ |= {
        "OMP_NUM_THREADS": "1",
        "ROS_DOMAIN_ID": str(domain if domain is not None else os.getpid() % 100 + 1),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        # Killed processes leave no shared memory behind.
        "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
    }
    return environ


def alone(words: list[str]) -> list[str]:
    """The command in a network of its own with nothing but loopback, where that is permitted."""
    unshare = shutil.which("unshare")
    for options in (["-n"], ["-r", "-n"]):
        if unshare and subprocess.run([unshare, *options, "true"], capture_output=True, check=False).returncode == 0:
            return [unshare, *options, sys.executable, str(Path(__file__).with_name("loopback.py")), *words]
    return words


def _run(words: list[str], aim: str) -> None:
    environ = {key: value for key, value in os.environ.items() if key not in _LEFT_OUT}
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240, env=environ)
    except subprocess.TimeoutExpired:
        raise RosUnavailableError(f"could not {aim}: no end after 240 s") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise RosUnavailableError(f"could not {aim}: {lines[-1] if lines else done.returncode}")


if __name__ == "__main__":
    try:
        print(ros_python())
    except RosUnavailableError as error:
        sys.exit(str(error))
