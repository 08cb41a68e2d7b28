"""Finding a GL backend for MuJoCo, and rendering cameras with the ``fast`` or the ``default`` preset."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_core.errors import ConfigError, MissingPartError

if TYPE_CHECKING:
    import mujoco

GL_PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6 libgl1 libgles2"
GL_FIX = f"install the rendering libraries, on Debian or Ubuntu: sudo apt-get install -y {GL_PACKAGES}"
SIM_FIX = "pip install 'robo-rm[sim]'"
MAX_IMAGE_SIZE = 1024

PRESETS = ("fast", "default")


def import_mujoco() -> Any:
    """The ``mujoco`` module, with ``MUJOCO_GL`` chosen first where the user left it open on a headless Linux.

    Raises:
        MissingPartError: MuJoCo is not installed.
    """
    _choose_backend()
    try:
        import mujoco
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise
        raise MissingPartError(f"MuJoCo is not installed, and this environment runs in it: {SIM_FIX}") from error
    return mujoco


def probe_gl() -> tuple[str | None, str]:
    """Try to make a GL context.

    Returns:
        ``(backend, "")`` with the backend that works (``egl``, ``osmesa`` or ``glfw``), or ``(None, fix)`` with the
        line that says what to do.
    """
    try:
        mujoco = import_mujoco()
    except MissingPartError as error:
        return None, str(error)
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>")
    try:
        CameraRenderer(model, 16, "fast").close()
    except MissingPartError as error:
        return None, str(error)
    return os.environ.get("MUJOCO_GL") or "glfw", ""


def _choose_backend() -> None:
    """Set ``MUJOCO_GL`` to the first headless backend whose library loads; ``mujoco`` reads it when it is imported.

    A choice made by the user, a display, and systems other than Linux are left alone.
    """
    if os.environ.get("MUJOCO_GL") or not sys.platform.startswith("linux"):
        return
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    if "mujoco" in sys.modules:
        return
    from ctypes.util import find_library

    for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if find_library(library) is not None:
            os.environ["MUJOCO_GL"] = backend
            return


def _gl_fix(chosen: str) -> str:
    """What to do where the backend ``chosen`` gives no context: the other one if it is there, else the packages."""
    from ctypes.util import find_library

    if chosen != "osmesa" and find_library("OSMesa") is not None:
        return "draw without the graphics driver: put MUJOCO_GL=osmesa before the command"
    return GL_FIX


def check_preset(name: str) -> None:
    """Raise ``ConfigError`` where ``name`` is no render preset."""
    if name not in PRESETS:
        raise ConfigError(f"render={name!r} is no render preset; choose one of: {', '.join(PRESETS)}")


def lighten(model: mujoco.MjModel, preset: str) -> None:
    """Switch off, in a compiled model, what the ``fast`` preset does without and is fixed when its context is made.

    Multisampling and shadow maps; the flags of the scene are set by :class:`CameraRenderer`.
    """
    if preset == "fast":
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0


_OPEN: weakref.WeakSet[CameraRenderer] = weakref.WeakSet()


@functools.cache
def _close_all_at_exit() -> None:
    """Close what is still open before the driver goes, or every context complains on stderr.

    What is registered last is called first, and MuJoCo's own farewell to the driver is registered with the first
    context: this must come after that, which ``weakref.finalize`` does not promise.
    """
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_OPEN):
        renderer.close()


class CameraRenderer:
    """Renders named cameras of one model to uint8 RGB images; the GL context is made here, once.

    Args:
        model: the compiled model.
        size: height and width in pixels.
        preset: ``fast`` (no shadows, reflections, haze or sky; the model's own multisampling should be off too) or
            ``default``.

    Raises:
        ConfigError: ``size`` is out of range.
        MissingPartError: no GL context can be made; names the fix.
    """

    def __init__(self, model: mujoco.MjModel, size: int, preset: str) -> None:
        if not 8 <= size <= MAX_IMAGE_SIZE:
            raise ConfigError(f"image_size={size} is out of range; choose between 8 and {MAX_IMAGE_SIZE} pixels")
        mujoco = import_mujoco()
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
            # PyOpenGL raises AttributeError where the library itself is missing, MuJoCo the others.
            chosen = os.environ.get("MUJOCO_GL", "unset")
            raise MissingPartError(
                f"cameras cannot be rendered (MUJOCO_GL={chosen}: {_first_line(error)}); {_gl_fix(chosen)}"
            ) from error
        # One that nobody refers to any more closes itself.
        _OPEN.add(self)
        _close_all_at_exit()
        if preset == "fast":
            flags = mujoco.mjtRndFlag
            for flag in (
                flags.mjRND_SHADOW,
                flags.mjRND_REFLECTION,
                flags.mjRND_SKYBOX,
                flags.mjRND_FOG,
                flags.mjRND_HAZE,
            ):
                self._renderer.scene.flags[flag] = 0

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """The view of ``camera``, (size, size, 3) uint8 RGB; camera poses in ``data`` must be up to date."""
        self._renderer.update_scene(data, camera)
        image: np.ndarray = self._renderer.render()
        return image

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
