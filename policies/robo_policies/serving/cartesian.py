"""Cartesian actions, poses of the end effector, into joint chunks by the inverse kinematics that the simulator uses.

LeRobot's end-effector data sets (``ee.x`` ... ``ee.wz``), DROID and UMI say where the hand shall be, not the joints.
Each target is solved by mink from the solution before it, inside the contract's position limits. Where a target is out
of reach, or the joints would have to jump to follow it (a singularity, another configuration), the chunk ends before it
and says so; nothing is ever sent that the core would have to guess about.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from robo_core.errors import ConfigError, MissingPartError, ModelError
from robo_hw.contract.robot_contract import RobotContract
from robo_policies.rendering import SIM_FIX, import_mujoco
from robo_policies.serving.cartesian_settings import ROTATIONS, CartesianSettings, check_settings

if TYPE_CHECKING:
    from mujoco import MjModel

_ITERATIONS = 60
_HASTE = 4.0
"""So many times what a joint may travel in one action is a jump, not a fast motion."""
_SINGULAR = 0.02
"""Smallest singular value of the hand's Jacobian (m and rad per rad) below which it counts as singular."""


class CartesianError(ModelError):
    """A chunk whose first targets cannot be reached; names target, cause and joint."""


class Kinematics:
    """Forward and inverse kinematics of a contract's joints, its gripper left out.

    Raises:
        ConfigError: the model cannot be read, lacks a joint of the contract or the frame; names it.
        MissingPartError: mink or MuJoCo is not installed.
    """

    def __init__(self, settings: CartesianSettings, contract: RobotContract) -> None:
        check_settings(settings)
        # First: mink imports MuJoCo, which chooses how to render when it is imported.
        mujoco = import_mujoco()
        try:
            import mink
        except ModuleNotFoundError as error:
            raise MissingPartError(f"mink is not installed; Cartesian actions are solved with it: {SIM_FIX}") from error
        self._mink, self._mujoco = mink, mujoco
        self._settings, self._contract = settings, contract
        gripper = contract.gripper.joint if contract.gripper is not None else None
        self.joints = tuple(joint for joint in contract.joints if joint.name != gripper)
        model = _load(self._mujoco, Path(str(settings.model)))
        names = {model.joint(i).name: i for i in range(model.njnt)}
        for joint in self.joints:
            if joint.name not in names:
                raise ConfigError(
                    f"cartesian.model={settings.model} has no joint {joint.name!r}; it has {', '.join(names)}"
                )
            place = names[joint.name]
            if model.jnt_type[place] not in (2, 3):
                raise ConfigError(f"cartesian.model={settings.model}: {joint.name} is not a hinge or a slide")
            if np.isfinite(joint.position).all():
                model.jnt_limited[place], model.jnt_range[place] = 1, joint.position
        self._places = np.array([model.jnt_qposadr[names[joint.name]] for joint in self.joints])
        self._columns = np.array([model.jnt_dofadr[names[joint.name]] for joint in self.joints])
        kind = self._frame_kind(model, settings.frame)
        self._kind, self._configuration = kind, mink.Configuration(model)
        self._task = mink.FrameTask(settings.frame, kind, position_cost=1.0, orientation_cost=0.3, lm_damping=1e-6)
        still = sorted(set(range(model.nv)) - {int(column) for column in self._columns})
        self._rest = mink.DampingTask(model, np.array([1e3 if i in still else 1e-4 for i in range(model.nv)]))
        self._limits = [mink.ConfigurationLimit(model)]

    def pose(self, joints: np.ndarray) -> np.ndarray:
        """Pose (4, 4) of the frame in the base where the joints (D,) are, the gripper left out."""
        self._place(joints)
        found = self._configuration.get_transform_frame_to_world(self._settings.frame, self._kind)
        matrix: np.ndarray = found.as_matrix()
        return matrix

    def solve(self, target: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, str]:
        """Joints (D,) that bring the frame to ``target`` (4, 4), found from ``start`` (D,); and why they do not, or
        nothing."""
        mink, settings = self._mink, self._settings
        self._place(start)
        self._task.set_target(mink.SE3.from_matrix(target))
        missed = (math.inf, math.inf)
        for _ in range(_ITERATIONS):
            error = self._task.compute_error(self._configuration)
            missed = float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))
            if missed[0] < settings.position_tolerance / 10 and missed[1] < settings.rotation_tolerance / 10:
                break
            velocity = mink.solve_ik(
                self._configuration, [self._task, self._rest], 1.0, "daqp", damping=1e-8, limits=self._limits
            )
            self._configuration.integrate_inplace(velocity, 1.0)
        joints = self._configuration.q[self._places].copy()
        if missed[0] <= settings.position_tolerance and missed[1] <= settings.rotation_tolerance:
            return joints, ""
        return (
            joints,
            f"cannot be reached: {missed[0] * 1e3:.0f} mm and {missed[1]:.2f} rad are missing{self._why(joints)}",
        )

    def singular(self, joints: np.ndarray) -> bool:
        """Whether the hand cannot move in some direction where the joints are."""
        self._place(joints)
        jacobian = self._configuration.get_frame_jacobian(self._settings.frame, self._kind)[:, self._columns]
        values = np.linalg.svd(jacobian, compute_uv=False)
        return bool(values[min(jacobian.shape) - 1] < _SINGULAR)

    def _why(self, joints: np.ndarray) -> str:
        for joint, value in zip(self.joints, joints, strict=True):
            low, high = joint.position
            if value <= low + 1e-3 * (high - low) or value >= high - 1e-3 * (high - low):
                return f"; {joint.name} is at its limit {value:.3g} {joint.unit}"
        return "; the arm is singular there" if self.singular(joints) else ""

    def _place(self, joints: np.ndarray) -> None:
        q = self._configuration.q.copy()
        q[self._places] = joints
        self._configuration.update(q)

    def _frame_kind(self, model: MjModel, frame: str) -> str:
        for kind, count, named in (("site", model.nsite, model.site), ("body", model.nbody, model.body)):
            if frame in {named(i).name for i in range(count)}:
                return kind
        bodies = ", ".join(model.body(i).name for i in range(1, model.nbody))
        raise ConfigError(f"cartesian.frame={frame!r} is not a link or site of {self._settings.model}; links: {bodies}")


class CartesianActions:
    """Turns chunks of hand poses into chunks of joint positions.

    Raises:
        ConfigError, MissingPartError: as `Kinematics`.
    """

    def __init__(self, settings: CartesianSettings, contract: RobotContract) -> None:
        self.kinematics = Kinematics(settings, contract)
        self._settings, self._contract = settings, contract
        names = contract.joint_names
        self._arm = [names.index(joint.name) for joint in self.kinematics.joints]
        self._gripper = names.index(contract.gripper.joint) if contract.gripper is not None else None
        self.size = 3 + ROTATIONS[settings.rotation] + (self._gripper is not None)
        """Values of one action."""
        self.reads_pose = settings.state == "pose"
        self.notice = ""
        """Why the last chunk was shortened; empty where it was not."""
        rate = contract.rates.actions
        reach = [min(joint.action_jump, _HASTE * joint.velocity / rate) for joint in self.kinematics.joints]
        self._reach = np.array(reach)

    def problem(self, size: int, names: tuple[str, ...] | None) -> str:
        """Why actions of ``size`` values, with these names, are not what the settings say; empty where they are."""
        if size != self.size:
            gripper = " + 1 of the gripper" if self._gripper is not None else ""
            form = self._settings.rotation
            return f"its actions have {size} values, a pose as {form} has {self.size} (3 + {ROTATIONS[form]}{gripper})"
        if names is None:
            return ""
        if names == self._contract.joint_names or all(name.endswith(".pos") for name in names):
            return f"its actions are joints ({', '.join(names)}), not a pose: leave cartesian.model out"
        if all(name.startswith("ee.") for name in names):
            wanted = ("ee.x", "ee.y", "ee.z", "ee.wx", "ee.wy", "ee.wz", "ee.gripper_pos")[: self.size]
            if self._settings.rotation != "rotvec" or self._settings.reference != "absolute" or names != wanted:
                return f"LeRobot's {', '.join(names)} are an absolute pose as rotvec, in the order {', '.join(wanted)}"
        if any("delta" in name for name in names) != (self._settings.reference == "delta"):
            return f"its actions are named {', '.join(names)}, and cartesian.reference is {self._settings.reference}"
        return ""

    def to_joints(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Joint positions (H', D) for the poses ``actions`` (H, A), H' <= H, from the joints ``state`` (D,).

        The chunk ends before the first target that cannot be followed; ``notice`` says which and why.

        Raises:
            CartesianError: that is the first target, or an action is not finite or has another size.
        """
        rows = np.asarray(actions, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.size:
            raise CartesianError(f"Cartesian actions of shape {rows.shape}; (H, {self.size}) is needed")
        if not np.isfinite(rows).all():
            step, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
            raise CartesianError(f"Cartesian action {step}: value {column} is {rows[step, column]}")
        self.notice = ""
        joints = np.asarray(state, np.float64)[self._arm]
        start = reference = self.kinematics.pose(joints)
        chunk = []
        for step, row in enumerate(rows):
            target = self._target(row, start, reference)
            solved, problem = self.kinematics.solve(target, joints)
            problem = problem or self._jump(solved, joints)
            if problem:
                place = ", ".join(f"{value:.3f}" for value in target[:3, 3])
                self.notice = f"Cartesian target {step} at ({place}) m {problem}"
                break
            joints, reference = solved, target
            chunk.append(self._whole(solved, row, state))
        if not chunk:
            raise CartesianError(self.notice)
        return np.array(chunk)

    def pose_state(self, state: np.ndarray) -> np.ndarray:
        """The hand's pose as the policy reads it, (A,) float32, where the joints are ``state`` (D,)."""
        values = np.asarray(state, np.float64)
        pose = self.kinematics.pose(values[self._arm])
        parts = [pose[:3, 3], rotation_values(pose[:3, :3], self._settings.rotation)]
        if self._gripper is not None and self._contract.gripper is not None:
            ends = self._contract.gripper
            fraction = (values[self._gripper] - ends.closed) / (ends.open - ends.closed)
            closed, opened = self._settings.gripper_closed, self._settings.gripper_open
            parts.append(np.array([closed + fraction * (opened - closed)]))
        return np.concatenate(parts).astype(np.float32)

    def _target(self, row: np.ndarray, start: np.ndarray, before: np.ndarray) -> np.ndarray:
        pose = np.eye(4)
        pose[:3, 3] = row[:3]
        pose[:3, :3] = rotation_matrix(row[3 : 3 + ROTATIONS[self._settings.rotation]], self._settings.rotation)
        if self._settings.reference == "relative":
            return np.asarray(start @ pose)
        if self._settings.reference == "delta":
            moved = before.copy()
            moved[:3, 3] += pose[:3, 3]
            moved[:3, :3] = pose[:3, :3] @ before[:3, :3]
            return moved
        return pose

    def _jump(self, solved: np.ndarray, before: np.ndarray) -> str:
        fraction = np.abs(solved - before) / self._reach
        worst = int(np.argmax(fraction))
        if fraction[worst] <= 1.0:
            return ""
        joint = self.kinematics.joints[worst]
        why = "near a singularity" if self.kinematics.singular(before) or self.kinematics.singular(solved) else "a jump"
        step = abs(solved[worst] - before[worst])
        return (
            f"would take {joint.name} by {step:.3g} {joint.unit} in one action, {self._reach[worst]:.3g} at most: {why}"
        )

    def _whole(self, solved: np.ndarray, row: np.ndarray, state: np.ndarray) -> np.ndarray:
        whole = np.array(state, np.float64)
        whole[self._arm] = solved
        gripper = self._contract.gripper
        if self._gripper is not None and gripper is not None:
            closed, opened = self._settings.gripper_closed, self._settings.gripper_open
            fraction = (row[-1] - closed) / (opened - closed)
            whole[self._gripper] = gripper.closed + fraction * (gripper.open - gripper.closed)
        return whole


def rotation_matrix(values: np.ndarray, form: str) -> np.ndarray:
    """The rotation (3, 3) that ``values`` mean in ``form``, one of ``ROTATIONS``.

    Raises:
        CartesianError: they are not a rotation: a quaternion of zeros, two parallel axes.
    """
    from scipy.spatial.transform import Rotation

    if form == "rotvec":
        return np.asarray(Rotation.from_rotvec(values).as_matrix())
    if form == "euler_xyz":
        return np.asarray(Rotation.from_euler("xyz", values).as_matrix())
    if form == "rotation_6d":  # Zhou et al. 2019, arXiv 1812.07035: the first two rows, made orthonormal
        first = values[:3] / max(float(np.linalg.norm(values[:3])), 1e-12)
        second = values[3:] - first * (first @ values[3:])
        if np.linalg.norm(values[:3]) < 1e-6 or np.linalg.norm(second) < 1e-6:
            raise CartesianError("a Cartesian action's rotation_6d has an axis of length 0, or two that are parallel")
        second /= np.linalg.norm(second)
        return np.stack([first, second, np.cross(first, second)])
    if np.linalg.norm(values) < 1e-6:
        raise CartesianError("a Cartesian action's quaternion is 0")
    return np.asarray(Rotation.from_quat(values if form == "quaternion_xyzw" else np.roll(values, -1)).as_matrix())


def rotation_values(matrix: np.ndarray, form: str) -> np.ndarray:
    """The reverse of ``rotation_matrix``."""
    from scipy.spatial.transform import Rotation

    if form == "rotation_6d":
        return np.concatenate([matrix[0], matrix[1]])
    rotation = Rotation.from_matrix(matrix)
    if form == "rotvec":
        return np.asarray(rotation.as_rotvec())
    if form == "euler_xyz":
        return np.asarray(rotation.as_euler("xyz"))
    quaternion = np.asarray(rotation.as_quat())
    return quaternion if form == "quaternion_xyzw" else np.roll(quaternion, 1)


def _load(mujoco: ModuleType, path: Path) -> MjModel:
    """MuJoCo's model of a URDF or MJCF without anything to be seen or touched: no mesh file is needed."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cartesian.model={path} cannot be read: {error.strerror or error}") from None
    except ElementTree.ParseError as error:
        raise ConfigError(f"cartesian.model={path} is not valid XML: {error}") from None
    try:
        if root.tag == "robot":
            return mujoco.MjModel.from_xml_string(_bare_urdf(root))
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ConfigError(f"cartesian.model={path} cannot be loaded: {' '.join(str(error).split())}") from None


def _bare_urdf(root: ElementTree.Element) -> str:
    for link in root.findall("link"):
        for tag in ("visual", "collision", "inertial"):
            for child in link.findall(tag):
                link.remove(child)
    for tag in ("transmission", "gazebo", "ros2_control", "material", "mujoco"):
        for child in root.findall(tag):
            root.remove(child)
    # Kinematics alone is asked for: every body gets some mass, and fixed links stay to be named.
    extension = ElementTree.SubElement(root, "mujoco")
    options = {"fusestatic": "false", "boundmass": "0.01", "boundinertia": "0.0001", "discardvisual": "true"}
    ElementTree.SubElement(extension, "compiler", options)
    return ElementTree.tostring(root, encoding="unicode")
