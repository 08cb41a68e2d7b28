"""LeRobot's `Robot` classes as arms: the one module here that imports LeRobot's robots (0.4.4 to 0.6).

Only the public interface is used: connect, get_observation, send_action, calibration, is_calibrated, disconnect. Where
a robot has a motor bus of LeRobot's, its transactions are serialised one by one, so that a command does not wait for a
camera; any other robot is asked for one thing at a time.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import pkgutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from robo_core.errors import MissingPartError
from robo_hw.contract.lerobot_units import SHOWN, LeRobotUnits, parse_calibration, reach_problems
from robo_hw.contract.parts import ENDS
from robo_hw.contract.robot_contract import RobotContract
from robo_policies.cloning.lerobot_versions import from_lerobot
from robo_policies.robots.arm import ArmError, CameraFrame, Reading

if TYPE_CHECKING:
    from lerobot.motors.motors_bus import MotorsBus
    from lerobot.robots import Robot, RobotConfig

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

_BUS_CALLS = ("sync_read", "sync_write", "read", "write", "disconnect")
_LONGEST = 300


@dataclass(frozen=True)
class LeRobotSettings:
    """One of LeRobot's robots, as its own commands take it."""

    type: str = "so101_follower"
    """LeRobot's name of the robot: `so101_follower`, `koch_follower`, or one of a plugin's (`lerobot_robot_...`)."""
    port: str | None = None
    """Serial port, such as /dev/ttyACM0 (lerobot-find-port finds it); null for robots without one."""
    id: str | None = None
    """The arm's name: its calibration file is the one of that name."""
    calibration_dir: str | None = None
    """Folder of the calibration files; LeRobot's own where it is null."""
    cameras: dict[str, Any] = field(default_factory=dict)
    """LeRobot's cameras by the contract's names: {front: {type: opencv, index_or_path: 0, width: 640, height: 480,
    fps: 30}}."""
    options: dict[str, Any] = field(default_factory=dict)
    """Any other setting of the robot's own configuration class, such as {use_degrees: false}."""


def known_types() -> list[str]:
    """Every robot type that LeRobot here knows, its plugins' included.

    Raises:
        MissingPartError: LeRobot is not installed.
    """
    return sorted(_registry("").get_known_choices())


def _registry(wanted: str) -> type[RobotConfig]:
    """LeRobot's registry of robots, filled until it knows ``wanted``."""
    try:
        import lerobot.robots as robots
        from lerobot.utils.import_utils import register_third_party_plugins
    except ImportError as error:
        raise MissingPartError(
            f"LeRobot is needed to drive its robots ({error}); pip install 'robo-rm[lerobot]'"
        ) from error
    registry = robots.RobotConfig
    found = [module.name for module in pkgutil.iter_modules(robots.__path__) if module.ispkg]
    for name in sorted(found, key=lambda name: -difflib.SequenceMatcher(None, name, wanted).ratio()):
        if wanted and wanted in registry.get_known_choices():
            return registry
        # A robot whose maker's library is not installed cannot be imported, and is not available.
        with contextlib.suppress(Exception):
            importlib.import_module(f"{robots.__name__}.{name}")
    if not wanted or wanted not in registry.get_known_choices():
        register_third_party_plugins()
    return registry


def _register_cameras(kinds: set[str]) -> None:
    import lerobot.cameras as cameras

    for module in pkgutil.iter_modules(cameras.__path__):
        if module.ispkg and any(kind in module.name or module.name in kind for kind in kinds):
            with contextlib.suppress(Exception):
                importlib.import_module(f"{cameras.__name__}.{module.name}")


def make_robot(settings: LeRobotSettings) -> Robot:
    """LeRobot's robot of these settings, not connected.

    Raises:
        ArmError: the type is unknown (lists those that are known), a setting is wrong, or its class cannot be made.
        MissingPartError: LeRobot is not installed.
    """
    registry = _registry(settings.type)
    if settings.type not in registry.get_known_choices():
        known = known_types()
        near = difflib.get_close_matches(settings.type, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ArmError(f"robot.type={settings.type} is not known to LeRobot here{hint} It knows: {', '.join(known)}")
    import draccus
    from lerobot.robots import make_robot_from_config

    _register_cameras({str(camera.get("type", "")) for camera in settings.cameras.values() if isinstance(camera, dict)})
    given = {key: getattr(settings, key) for key in ("port", "id", "calibration_dir") if getattr(settings, key)}
    given |= settings.options
    if settings.cameras:
        given["cameras"] = settings.cameras
    try:
        config = draccus.decode(registry, {"type": settings.type, **given})
    except Exception as error:  # noqa: BLE001 - draccus and the classes' own checks raise all kinds
        raise ArmError(f"robot.type={settings.type} does not take these settings: {_line(error)}") from None
    try:
        return make_robot_from_config(config)
    except ModuleNotFoundError as error:
        raise ArmError(
            f"LeRobot's {settings.type} needs {error.name}, which is not installed: pip install the part of LeRobot "
            "that brings it, such as 'lerobot[feetech]' (SO-100, SO-101) or 'lerobot[dynamixel]' (Koch)"
        ) from None
    except Exception as error:  # noqa: BLE001 - constructors of drivers raise all kinds
        raise ArmError(f"LeRobot's {settings.type} cannot be made: {_line(error)}") from None


class LeRobotArm:
    """One of LeRobot's robots, in the contract's units.

    Args:
        robot: any ``lerobot.robots.Robot``.
        contract: with a section ``lerobot``.
        kind: LeRobot's name of its type, as in ``robot.type``; a class may serve several.

    Raises:
        ContractError: the contract has no section ``lerobot``.
        ArmError: joints or cameras of the two differ, by name, or the section is for other robots.
    """

    vector_names: Mapping[str, Sequence[str]] = MappingProxyType({})
    stages: Sequence[str] = ()

    def __init__(self, robot: Robot, contract: RobotContract, kind: str) -> None:
        self._robot, self._contract = robot, contract
        self._units = LeRobotUnits(contract)
        self.name = kind
        self._seen: dict[str, object] = {}
        self._frames: dict[str, float] = {}
        self._joint_of = dict(zip(self._units.names, contract.joint_names, strict=True))
        self._place = {name: place for place, name in enumerate(self._units.names)}
        self._check_features()
        self._buses = _buses(robot)
        self._check_units()
        self._lock: AbstractContextManager[object] = contextlib.nullcontext()
        if not self._buses:
            self._lock = threading.RLock()

    @property
    def at_disconnect(self) -> str:
        """What its configuration says of the torque."""
        configs = [getattr(self._robot, "config", None)]
        configs += [getattr(configs[0], f"{side}_arm_config", None) for side in ("left", "right")]
        cuts = [getattr(config, "disable_torque_on_disconnect", None) for config in configs]
        if any(cut is True for cut in cuts):
            return f"{self.name} cuts the motors' torque at disconnect: the arm falls unless it is held"
        if any(cut is False for cut in cuts):
            return f"{self.name} leaves the torque on at disconnect: the arm goes on holding its last position"
        return f"{self.name} does not say what it does with the torque at disconnect: hold the arm"

    def connect(self) -> None:
        """Connect without calibrating; LeRobot switches the torque off and on again meanwhile."""
        try:
            self._robot.connect(calibrate=False)
        except Exception as error:  # noqa: BLE001 - drivers raise all kinds
            self.disconnect()
            raise ArmError(f"{self.name} cannot be connected: {_line(error)}") from None
        try:
            self._check_calibration()
        except BaseException:
            self.disconnect()
            raise
        for bus in self._buses:
            _serialise(bus)

    def read(self) -> Reading:
        """One ``get_observation``; where a camera makes that fail, the joints alone."""
        with self._lock:
            try:
                observation, problems = self._robot.get_observation(), {}
            except Exception as error:  # noqa: BLE001 - raised again where the joints say nothing either
                observation, problems = self._joints_only(error), {"observation": _line(error)}
        return self._reading(observation, problems)

    def write(self, positions: np.ndarray) -> None:
        """One ``send_action``."""
        values = self._units.from_contract(positions)
        action = {name: float(value) for name, value in zip(self._units.names, values, strict=True)}
        with self._lock:
            self._robot.send_action(action)

    @property
    def connected(self) -> bool:
        """What the robot's class says."""
        try:
            return bool(self._robot.is_connected)
        except Exception:  # noqa: BLE001 - a driver that cannot say so is not connected
            return False

    def disconnect(self) -> None:
        """LeRobot's own disconnect, whatever is left of the connection."""
        with contextlib.suppress(Exception):
            self._robot.disconnect()

    # How it works ---------------------------------------------------------------------------------------------------

    def _check_features(self) -> None:
        section, contract = self._units.section, self._contract
        if section.robots and self.name not in section.robots:
            raise ArmError(
                f"the contract {contract.robot} has a section lerobot for {', '.join(section.robots)}, not for "
                f"{self.name}"
            )
        for what, features in (("observation", "observation_features"), ("action", "action_features")):
            there = getattr(self._robot, features)
            for name in self._units.names:
                if name not in there:
                    found = ", ".join(key for key, kind in there.items() if not isinstance(kind, tuple)) or "none"
                    raise ArmError(
                        f"{self.name} has no {what} {name!r}; it has {found}. See lerobot.joints of the contract"
                    )
        actions = [key for key in self._robot.action_features if key not in self._place]
        if actions:
            raise ArmError(
                f"{self.name} also takes {', '.join(actions)}, which the contract {contract.robot} has no joint for"
            )
        shapes = {key: kind for key, kind in self._robot.observation_features.items() if isinstance(kind, tuple)}
        for camera in contract.cameras:
            shape, wanted = shapes.get(camera.name), (camera.height, camera.width, 3)
            if shape is None:
                have = ", ".join(shapes) or "none"
                raise ArmError(f"{self.name} has no camera {camera.name!r}, it has {have}; give robot.cameras")
            if tuple(shape) != wanted:
                raise ArmError(f"camera {camera.name} of {self.name} gives {tuple(shape)}, the contract says {wanted}")

    def _check_units(self) -> None:
        """LeRobot's own unit of each motor, which its settings choose (use_degrees), against the contract's."""
        sides = ("left_", "right_") if len(self._buses) == 2 else ("",)
        for side, bus in zip(sides, self._buses, strict=False):
            for motor, described in bus.motors.items():
                mode = getattr(getattr(described, "norm_mode", None), "value", None)
                place = self._place.get(f"{side}{motor}.pos")
                if place is None or mode not in ENDS:
                    continue
                said = self._units.section.joints[place].units
                if said != mode:
                    raise ArmError(
                        f"{side}{motor}.pos of {self.name} is in {SHOWN[mode]}, the contract's section lerobot says "
                        f"{SHOWN[said]}: give robot.options.use_degrees, or change lerobot.units of the contract"
                    )

    def _check_calibration(self) -> None:
        robot, section = self._robot, self._units.section
        if not robot.is_calibrated:
            path = getattr(robot, "calibration_fpath", "its file")
            raise ArmError(
                f"{self.name} is not calibrated as {path} says: run lerobot-calibrate --robot.type={self.name} "
                f"--robot.id={getattr(robot, 'id', None)}, or give the robot.id it was calibrated with"
            )
        motors = {}
        for name, motor in (getattr(robot, "calibration", None) or {}).items():
            values = motor if isinstance(motor, dict) else vars(motor)
            motors[str(name)] = {
                key: int(value) for key, value in values.items() if isinstance(value, int | np.integer)
            }
        if not motors:
            return
        calibration, wrong = parse_calibration(motors)
        if wrong:
            raise ArmError(f"the calibration of {self.name}: {'; '.join(wrong)}")
        for name, known in (section.calibration or {}).items():
            here = calibration.get(name)
            if here is not None and (here.range_min, here.range_max) != (known.range_min, known.range_max):
                raise ArmError(
                    f"{name} of {self.name} is calibrated from {here.range_min} to {here.range_max}, the contract's "
                    f"calibration says {known.range_min} to {known.range_max}: one is another arm's; give the contract "
                    "this arm's file, and check the arm against its recordings"
                )
        problems = reach_problems(self._contract, calibration)
        if problems:
            raise ArmError(f"the calibration of {self.name}: {'; '.join(problems)}")

    def _joints_only(self, error: Exception) -> dict[str, object]:
        """What the motors say where a camera failed; the driver's own error where they say nothing either."""
        if len(self._buses) != 1 or not self._contract.cameras:
            raise error
        positions = self._buses[0].sync_read("Present_Position")
        return {f"{motor}.pos": value for motor, value in positions.items()}

    def _reading(self, observation: Mapping[str, npt.ArrayLike], problems: dict[str, str]) -> Reading:
        names, values = [], np.zeros(len(self._place))
        for name, place in self._place.items():
            value = observation.get(name)
            if value is not None:
                names.append(self._joint_of[name])
                values[place] = float(np.asarray(value, np.float64))
        positions = self._units.to_contract(values)
        kept = [self._place[name] for name in self._place if observation.get(name) is not None]
        images: dict[str, CameraFrame] = {}
        for camera in self._contract.cameras:
            problem = self._image(camera.name, observation.get(camera.name), (camera.height, camera.width, 3), images)
            if problem and "observation" not in problems:
                problems[f"camera {camera.name}"] = problem
        return Reading(names, positions[kept], images, problems=problems)

    def _image(
        self, name: str, image: npt.ArrayLike | None, wanted: tuple[int, int, int], images: dict[str, CameraFrame]
    ) -> str:
        """Take a new image; returns why it is none."""
        if image is None:
            return "no image came"
        frame = np.asarray(image)
        if frame.size == 0:
            return "an empty image came"
        if frame.shape != wanted or frame.dtype != np.uint8:
            return f"an image of {frame.shape} {frame.dtype} came, the contract says {wanted} uint8"
        stamp = getattr((getattr(self._robot, "cameras", None) or {}).get(name), "latest_timestamp", None)
        if image is self._seen.get(name) or (stamp is not None and stamp == self._frames.get(name)):
            return ""  # the newest is the one that was seen already: it grows old
        self._seen[name] = image
        if isinstance(stamp, float):
            self._frames[name] = stamp
        images[name] = CameraFrame(frame, stamp if isinstance(stamp, float) else None)
        return ""


def _buses(robot: Robot) -> list[MotorsBus]:
    """LeRobot's motor buses of a robot, of both arms where it has two; none where one part has none."""
    try:
        base = from_lerobot("MotorsBus")
    except ImportError:
        return []
    parts = [part for part in (getattr(robot, f"{side}_arm", None) for side in ("left", "right")) if part is not None]
    buses = [getattr(part, "bus", None) for part in parts or [robot]]
    return buses if all(isinstance(bus, base) for bus in buses) else []


def _serialise(bus: MotorsBus) -> None:
    """Let one transaction at a time through: LeRobot's buses are one serial line and know no threads."""
    lock = threading.RLock()

    def locked(call: Callable[ParamsT, ResultT]) -> Callable[ParamsT, ResultT]:
        @functools.wraps(call)
        def one_at_a_time(*args: ParamsT.args, **kwargs: ParamsT.kwargs) -> ResultT:
            with lock:
                return call(*args, **kwargs)

        return one_at_a_time

    for name in _BUS_CALLS:
        if callable(getattr(bus, name, None)):
            setattr(bus, name, locked(getattr(bus, name)))


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
