"""Checks that this machine can render and decode LeRobot's video, and installs the libraries where it may.

Run as ``python -m robo_policies.system.libraries``, which is a step of ``make setup``.
MuJoCo draws through OpenGL, LeRobot decodes video through FFmpeg's shared libraries (torchcodec), and the tests of a
policy server on another computer join network namespaces with ``ip``; pip cannot install these. As root on Debian or
Ubuntu the packages are installed; otherwise the one line to run is printed. Nothing here fails the set-up: the rest
works without.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One thing that shared libraries bring.

    Attributes:
        libraries: any one of them will do; or programs, where ``program`` is set.
        packages: Debian's packages; the first that the machine's release knows is taken.
    """

    libraries: tuple[str, ...]
    packages: tuple[str, ...]
    program: bool = False


DRIVERS = "libgl1-mesa-dri"
EGL, OSMESA = Part(("libEGL.so.1",), ("libegl1",)), Part(("libOSMesa.so.8",), ("libosmesa6",))
RENDERING = (
    EGL,
    OSMESA,
    Part(("libEGL_mesa.so.0",), ("libegl-mesa0",)),
    Part(("libGL.so.1",), ("libgl1",)),
    Part(("libGLESv2.so.2",), ("libgles2",)),
    Part(("libgbm.so.1",), (DRIVERS,)),
    Part(("libglib-2.0.so.0",), ("libglib2.0-0", "libglib2.0-0t64")),
)
# torchcodec 0.10 loads FFmpeg 4 to 8; this one of its libraries pulls in the others.
NETWORK = (Part(("ip",), ("iproute2",), program=True),)
VIDEO = (Part(tuple(f"libavdevice.so.{number}" for number in range(58, 63)), ("ffmpeg",)),)


def missing_parts(parts: tuple[Part, ...]) -> list[Part]:
    """Return the parts of which no library can be loaded, and no program found, here."""
    return [part for part in parts if not any(_found(part, name) for name in part.libraries)]


def _found(part: Part, name: str) -> bool:
    return shutil.which(name) is not None if part.program else _loads(name)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def install_line(absent: list[Part]) -> str:
    """Return the one command that installs what is absent on Debian and Ubuntu."""
    drivers = {DRIVERS} if set(absent) & set(RENDERING) else set()
    packages = sorted({part.packages[0] for part in absent} | drivers)
    return f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"


def ensure_libraries() -> list[str]:
    """Install what is missing where that is allowed; return a line on rendering, one on video and one on networks."""
    if sys.platform != "linux":
        return ["rendering, video and networks: the system's own libraries are used here"]
    absent = missing_parts((*RENDERING, *VIDEO, *NETWORK))
    if absent and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(absent)
    still = missing_parts((*RENDERING, *VIDEO, *NETWORK))
    # One of the two off-screen ways to draw is enough.
    drawn = not {EGL, OSMESA} <= set(still)
    return [
        _describe("rendering", [part for part in still if part in RENDERING], usable=drawn),
        _describe("LeRobot's video", [part for part in still if part in VIDEO], usable=False),
        _describe("tests across a network", [part for part in still if part in NETWORK], usable=False),
    ]


def _install(absent: list[Part]) -> None:
    subprocess.run(["apt-get", "update", "-qq"], check=False, stdin=subprocess.DEVNULL)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for part in absent:
        drivers = [DRIVERS] if part in RENDERING else []
        for package in part.packages:
            command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package, *drivers]
            made = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, env=environment)
            if made.returncode == 0:
                break


def _describe(what: str, absent: list[Part], usable: bool) -> str:
    if not absent:
        return f"{what}: found"
    names = ", ".join(part.libraries[0] for part in absent)
    line = install_line(absent)
    run = line if os.geteuid() == 0 else f"sudo sh -c '{line}'"
    return f"{what}: {names} missing{', but usable' if usable else ''}; run: {run}"


if __name__ == "__main__":
    for line in ensure_libraries():
        print(line)
