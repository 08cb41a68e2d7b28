"""Checks that this machine can render, and installs the libraries where it may.

Run as ``python -m robo_policies.system.libraries``, which is a step of ``make setup``.
MuJoCo draws through OpenGL, which pip cannot install. As root on Debian or Ubuntu the packages are installed;
otherwise the one line to run is printed. Nothing here fails the set-up: the rest works without rendering.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

# The library to look for, and the Debian packages that bring it; the first that the machine's release knows is taken.
NEEDED: dict[str, tuple[str, ...]] = {
    "libEGL.so.1": ("libegl1",),
    "libEGL_mesa.so.0": ("libegl-mesa0",),
    "libGL.so.1": ("libgl1",),
    "libGLESv2.so.2": ("libgles2",),
    "libOSMesa.so.8": ("libosmesa6",),
    "libgbm.so.1": ("libgl1-mesa-dri",),
    "libglib-2.0.so.0": ("libglib2.0-0", "libglib2.0-0t64"),
}
DRIVERS = "libgl1-mesa-dri"


def missing_libraries() -> list[str]:
    """Return the shared libraries for rendering that cannot be loaded here."""
    absent = []
    for name in NEEDED:
        try:
            ctypes.CDLL(name)
        except OSError:
            absent.append(name)
    return absent


def install_line(absent: list[str]) -> str:
    """Return the one command that installs what is absent on Debian and Ubuntu."""
    packages = sorted({NEEDED[name][0] for name in absent} | {DRIVERS})
    return f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"


def ensure_libraries() -> str:
    """Install what rendering needs where that is allowed, and return one line that says how it stands."""
    if sys.platform != "linux":
        return "rendering: MuJoCo uses the system's own OpenGL here"
    absent = missing_libraries()
    if not absent:
        return "rendering: OpenGL libraries found"
    line = install_line(absent)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sudo = "" if os.geteuid() == 0 else "sudo sh -c '" + line + "'"
        return f"rendering: {', '.join(absent)} missing; run: {sudo or line}"
    subprocess.run(["apt-get", "update", "-qq"], check=False, stdin=subprocess.DEVNULL)
    for name in absent:
        for package in NEEDED[name]:
            command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package, DRIVERS]
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            if subprocess.run(command, check=False, stdin=subprocess.DEVNULL, env=environment).returncode == 0:
                break
    still = missing_libraries()
    # One of the two off-screen ways to draw is enough.
    usable = "libEGL.so.1" not in still or "libOSMesa.so.8" not in still
    return (
        "rendering: OpenGL libraries installed" if usable else f"rendering: still missing; run: {install_line(still)}"
    )


if __name__ == "__main__":
    print(ensure_libraries())
