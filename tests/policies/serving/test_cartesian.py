"""Poses of the hand into joints: what can be followed is, what cannot is named, and nothing ever jumps."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robo_core.errors import ConfigError, ModelError
from robo_hw import RobotContract
from robo_hw.transport import Observation
from robo_policies.serving.cartesian import CartesianActions, CartesianError, rotation_matrix, rotation_values
from robo_policies.serving.cartesian_settings import ROTATIONS, CartesianSettings
from robo_policies.serving.fit import NO_GO, policy_findings
from robo_policies.serving.loading import Loaded
from robo_policies.serving.served import ServedLearnedPolicy

# Not imported here: mink imports MuJoCo, which chooses how to render once and for all.
pytestmark = pytest.mark.skipif(find_spec("mink") is None, reason="mink is not installed")

LINKS = [
    ("shoulder_pan_joint", "0 0 0.1625", "0 0 0"),
    ("shoulder_lift_joint", "0 0 0", "1.5708 0 0"),
    ("elbow_joint", "-0.425 0 0", "0 0 0"),
    ("wrist_1_joint", "-0.3922 0 0.1333", "0 0 0"),
    ("wrist_2_joint", "0 -0.0997 0", "1.5708 0 0"),
    ("wrist_3_joint", "0 0.0996 0", "-1.5708 0 0"),
]
READY = np.array([0.6, -1.8, 1.9, -1.6, -1.5, 0.4])
UR5E = RobotContract.load("ur5e")


@pytest.fixture(scope="module")
def urdf(tmp_path_factory) -> Path:
    """The kinematics of a UR5e, with a mesh that is not there and a tool on a fixed joint."""
    parts, parent = ["<robot name='ur5e'><link name='base_link'><visual><geometry><mesh filename='package://x/y.dae'/>"
                     "</geometry></visual></link>"], "base_link"  # fmt: skip
    for name, xyz, rpy in LINKS:
        link = name.replace("_joint", "_link")
        parts.append(
            f"<link name='{link}'/><joint name='{name}' type='revolute'><parent link='{parent}'/><child link='{link}'/>"
            f"<origin xyz='{xyz}' rpy='{rpy}'/><axis xyz='0 0 1'/>"
            "<limit lower='-6.283' upper='6.283' effort='150' velocity='3.14'/></joint>"
        )
        parent = link
    parts.append(
        f"<link name='tool0'/><joint name='tool' type='fixed'><parent link='{parent}'/><child link='tool0'/>"
        "<origin xyz='0 0 0.1' rpy='0 0 0'/></joint></robot>"
    )
    path = tmp_path_factory.mktemp("models") / "ur5e.urdf"
    path.write_text("".join(parts))
    return path


def actions(urdf: Path, contract: RobotContract = UR5E, **settings) -> CartesianActions:
    return CartesianActions(CartesianSettings(model=str(urdf), frame="tool0", **settings), contract)


def line(poses: CartesianActions, start: np.ndarray, way: np.ndarray, count: int = 10) -> np.ndarray:
    """``count`` targets along ``way`` (3,) m from where the hand is, turned as it is."""
    pose = poses.kinematics.pose(start)
    turn = Rotation.from_matrix(pose[:3, :3]).as_rotvec()
    return np.array([np.concatenate([pose[:3, 3] + way * (i + 1) / count, turn]) for i in range(count)])


@pytest.mark.parametrize("form", ROTATIONS)
def test_every_form_of_a_rotation_is_read_and_written_alike(form):
    for seed in range(5):
        matrix = Rotation.random(random_state=seed).as_matrix()
        values = rotation_values(matrix, form)
        assert len(values) == ROTATIONS[form]
        assert np.allclose(rotation_matrix(values, form), matrix)


@pytest.mark.parametrize(("form", "values"), [("quaternion_wxyz", np.zeros(4)), ("rotation_6d", np.ones(6))])
def test_what_is_no_rotation_is_refused(form, values):
    with pytest.raises(CartesianError):
        rotation_matrix(values, form)


def test_the_joints_follow_the_hand_to_the_millimetre_without_a_jump(urdf):
    poses = actions(urdf)
    targets = line(poses, READY, np.array([0.05, 0.08, -0.06]))
    joints = poses.to_joints(targets, READY)
    assert joints.shape == (10, 6)
    assert poses.notice == ""
    reached = np.array([poses.kinematics.pose(row)[:3, 3] for row in joints])
    assert np.abs(reached - targets[:, :3]).max() < 0.003
    assert np.abs(np.diff(np.vstack([READY, joints]), axis=0)).max() < 0.1


def test_relative_and_delta_poses_mean_the_same_motion_as_absolute_ones(urdf):
    absolute = actions(urdf)
    targets = line(absolute, READY, np.array([0.03, -0.02, 0.04]), 5)
    expected = absolute.to_joints(targets, READY)
    start = absolute.kinematics.pose(READY)
    delta = np.zeros((5, 6))
    delta[:, :3] = np.array([0.03, -0.02, 0.04]) / 5
    assert np.allclose(actions(urdf, reference="delta").to_joints(delta, READY), expected, atol=2e-3)
    relative = np.zeros((5, 6))
    relative[:, :3] = (targets[:, :3] - start[:3, 3]) @ start[:3, :3]
    assert np.allclose(actions(urdf, reference="relative").to_joints(relative, READY), expected, atol=2e-3)


def test_a_chunk_that_leaves_the_reach_is_shortened_and_the_target_is_named(urdf):
    poses = actions(urdf)
    joints = poses.to_joints(line(poses, READY, np.array([0.0, 0.0, 1.2]), 40), READY)
    assert 5 < len(joints) < 40
    assert f"Cartesian target {len(joints)} at (" in poses.notice
    assert "cannot be reached" in poses.notice or "would take" in poses.notice
    steps = np.abs(np.diff(np.vstack([READY, joints]), axis=0))
    assert (steps <= 4 * UR5E.array("velocity") / UR5E.rates.actions + 1e-9).all()


def test_a_first_target_out_of_reach_is_refused_with_its_place(urdf):
    poses = actions(urdf)
    far = line(poses, READY, np.array([0.0, 0.0, 3.0]), 1)
    with pytest.raises(CartesianError, match=r"Cartesian target 0 at \(.*\) m cannot be reached: \d+ mm"):
        poses.to_joints(far, READY)


def test_a_joint_at_its_limit_of_the_contract_is_named(urdf):
    data = UR5E.to_dict()
    data["joints"][0]["position"] = [0.5, 0.7]
    poses = actions(urdf, RobotContract.from_dict(data))
    start = poses.kinematics.pose(READY)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0, 0, 0.3]).as_matrix()
    target = turn @ start
    row = np.concatenate([target[:3, 3], Rotation.from_matrix(target[:3, :3]).as_rotvec()])[None]
    with pytest.raises(CartesianError, match="shoulder_pan_joint is at its limit"):
        poses.to_joints(row, READY)


def test_a_jump_to_another_side_is_refused_by_joint(urdf):
    poses = actions(urdf)
    other = READY + np.array([0, 0, 0, 0, 0, 2.5])
    pose = poses.kinematics.pose(other)
    row = np.concatenate([pose[:3, 3], Rotation.from_matrix(pose[:3, :3]).as_rotvec()])[None]
    with pytest.raises(CartesianError, match=r"Cartesian target 0 .* would take .* in one action"):
        poses.to_joints(row, READY)


def test_near_a_singularity_nothing_jumps(urdf):
    stretched = np.array([0.6, -1.2, 0.25, -0.6, -1.5, 0.4])  # the elbow almost straight
    poses = actions(urdf)
    assert poses.kinematics.singular(np.array([0.6, -1.2, 0.0, -0.4, -1.5, 0.4]))
    pose = poses.kinematics.pose(stretched)
    away = pose[:3, 3] - np.array([0, 0, 0.1625])
    joints = poses.to_joints(line(poses, stretched, 0.1 * away / np.linalg.norm(away), 40), stretched)
    assert len(joints) < 40  # beyond the stretched arm there is nothing
    assert "cannot be reached" in poses.notice or "would take" in poses.notice
    assert np.abs(np.diff(np.vstack([stretched, joints]), axis=0)).max() < 4 * 3.14 / 20 + 1e-9


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (np.full((3, 6), np.nan), "Cartesian action 0: value 0 is nan"),
        (np.zeros((3, 7)), r"Cartesian actions of shape \(3, 7\); \(H, 6\) is needed"),
        (np.zeros(6), "shape"),
    ],
)
def test_broken_actions_are_refused(urdf, rows, match):
    with pytest.raises(CartesianError, match=match):
        actions(urdf).to_joints(rows, READY)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"frame": "tool1"}, "cartesian.frame='tool1' is not a link or site .*tool0"),
        ({"frame": ""}, "cartesian.frame is missing"),
        ({"rotation": "euler"}, "cartesian.rotation=euler is not one of"),
        ({"reference": "base"}, "cartesian.reference=base is not one of"),
        ({"state": "ee"}, "cartesian.state=ee is neither"),
        ({"gripper_open": 0.0}, "are both 0"),
        ({"model": "nowhere.urdf"}, "cartesian.model=nowhere.urdf cannot be read"),
    ],
)
def test_wrong_settings_are_named(urdf, settings, match):
    with pytest.raises(ConfigError, match=match):
        CartesianActions(CartesianSettings(**{"model": str(urdf), "frame": "tool0"} | settings), UR5E)


def test_a_model_of_another_arm_is_refused_by_joint(urdf):
    with pytest.raises(ConfigError, match="has no joint 'panda_joint1'"):
        actions(urdf, RobotContract.load("franka_panda"))


class Poses:
    """What a loaded policy with poses as actions looks like from outside."""

    folder, kind, chunk_size, execution_horizon, observation_steps = Path("poses"), "act", 8, 4, 1
    cameras = {}  # noqa: RUF012 - as the real one has it

    def __init__(self, rows: np.ndarray, names: list[str] | None, state: int = 6) -> None:
        self.rows, self.seen = rows, []
        self.card = {"actions": names, "fps": 20.0, "store": {}}
        self.dims = {"observation.state": state, "action": rows.shape[1]}

    def reset(self) -> None:
        pass

    def act(self, observation):
        self.seen.append(observation["observation.state"])
        return self.rows


def test_a_served_policy_of_poses_answers_with_joints(urdf):
    settings = CartesianSettings(model=str(urdf), frame="tool0", state="pose")
    poses = CartesianActions(settings, UR5E)
    policy = Poses(
        line(poses, READY, np.array([0.02, 0.02, 0.0]), 8), ["ee.x", "ee.y", "ee.z", "ee.wx", "ee.wy", "ee.wz"]
    )
    served, _ = Loaded(policy, None, settings).served(UR5E)
    chunk = served.start("").act(Observation(0, 0.0, {"observation.state": READY.astype(np.float32)}))
    assert chunk.shape == (8, 6)
    assert served.info.needs["observation.state"] == (6,)
    assert np.allclose(policy.seen[0][:3], poses.kinematics.pose(READY)[:3, 3], atol=1e-5)


def test_the_gripper_of_a_pose_goes_where_the_contract_says(urdf):
    drawer = RobotContract.load("tidy_drawer")
    from robo_policies.envs.tidy_drawer import scene

    model = urdf.with_name("drawer.xml")
    model.write_text(scene.arm_xml())
    settings = CartesianSettings(model=str(model), frame="tip", gripper_closed=1.0, gripper_open=0.0)
    poses = CartesianActions(settings, drawer)
    home = np.array([0.0, 0.0, 0.0, 0.0, 1.57, 0.0, 0.5])
    rows = np.column_stack([line(poses, home[:6], np.array([0.0, 0.02, 0.0]), 4), [1.0, 0.75, 0.5, 0.0]])
    joints = poses.to_joints(rows, home)
    assert np.allclose(joints[:, 6], [0.0, 0.25, 0.5, 1.0])
    assert poses.pose_state(home)[-1] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("size", "names", "match"),
    [
        (7, None, "its actions have 7 values, a pose as rotvec has 6"),
        (6, list(UR5E.joint_names), "its actions are joints"),
        (6, ["ee.y", "ee.x", "ee.z", "ee.wx", "ee.wy", "ee.wz"], "in the order ee.x, ee.y"),
        (6, ["delta_x", "delta_y", "delta_z", "delta_a", "delta_b", "delta_c"], "cartesian.reference is absolute"),
    ],
)
def test_actions_that_are_not_what_the_settings_say_are_refused(urdf, size, names, match):
    settings = CartesianSettings(model=str(urdf), frame="tool0")
    policy = Poses(np.zeros((8, size)), names)
    found = policy_findings(policy, UR5E, CartesianActions(settings, UR5E))
    (finding,) = [one for one in found if one.check == "Cartesian actions"]
    assert finding.verdict == NO_GO
    assert match in finding.detail
    with pytest.raises(ModelError, match="Cartesian actions"):
        Loaded(policy, None, settings).served(UR5E)


def test_a_policy_of_poses_without_the_settings_is_refused_as_joints(urdf):
    with pytest.raises(ModelError, match="its actions have 7 values, the contract 6 joints"):
        Loaded(Poses(np.zeros((8, 7)), None), None).served(UR5E)


def test_a_chunk_that_is_shortened_is_said_once(urdf, capsys):
    poses = actions(urdf)
    policy = Poses(line(poses, READY, np.array([0.0, 0.0, 1.2]), 40), None)
    served = ServedLearnedPolicy(policy, UR5E, poses)
    for _ in range(3):
        served.act(Observation(0, 0.0, {"observation.state": READY.astype(np.float32)}))
    assert capsys.readouterr().out.count("a chunk was shortened to") == 1
