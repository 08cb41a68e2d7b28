"""The tidy-drawer scene: a small 6-joint arm with a parallel gripper, a table, a drawer and a cube, in MJCF.

Everything is a primitive. Metres, radians, kilograms; x points away from the robot, z up, the table top is z = 0.
"""

from __future__ import annotations

from robo_policies.rendering import check_preset

CONTROL_HZ = 20
TIMESTEP = 0.005
SUBSTEPS = 10

ARM_JOINTS = ("base_yaw", "shoulder_pitch", "elbow_pitch", "forearm_roll", "wrist_pitch", "wrist_roll")
ARM_RANGES = ((-2.2, 2.2), (-1.2, 1.6), (-1.6, 1.6), (-1.7, 1.7), (-1.8, 1.8), (-2.8, 2.8))  # rad
FINGER_TRAVEL = 0.03
"""How far each finger slides; the gripper opens to twice this."""

SHOULDER_HEIGHT, ARM_LENGTH, WRIST_TO_TIP = 0.11, 0.32, 0.112
"""Height of the shoulder's axis; upper arm and forearm together; from the wrist's pitch axis to the tip."""

CUBE_HALF = 0.014
DRAWER_Y = 0.09
DRAWER_FRONT_X = 0.25
"""x of the drawer's front panel when it is shut."""
DRAWER_TRAVEL = 0.11
TRAY_HALF_X, TRAY_HALF_Y = 0.055, 0.055
"""Inside half-sizes of the tray."""
TRAY_FLOOR, TRAY_WALL_TOP = 0.006, 0.042
CABINET_TOP = 0.056
HANDLE_HEIGHT = 0.072
"""z at which the handle is held."""
TRAY_CENTRE_X = DRAWER_FRONT_X + 0.008 + TRAY_HALF_X
"""x of the tray's middle when the drawer is shut."""

CAMERAS = ("front", "wrist")

# Stiffness (N m/rad), damping (N m s/rad) and torque (N m) of each joint's servo. The damping is critical for the
# joint's inertia with the arm as it is drawn, 2 sqrt(stiffness inertia), and .3 of the bearing. It belongs to the
# joint, and stands here as a number, so that the arm moves alike on every MuJoCo: after 3.3.7 the damping of a servo at
# its limit of torque is integrated in another way, and from 3.15 on a servo's dampratio="1" takes another inertia.
# Either puts the arm several mrad elsewhere within a step.
_SERVOS = dict(
    zip(
        ARM_JOINTS,
        ((60, 2.4431, 8), (60, 2.9789, 8), (50, 2.24545, 8), (20, 1.1972, 4), (20, 1.22174, 4), (10, 0.9339, 3)),
        strict=True,
    )
)
_GRIPPER_STIFFNESS, _FINGER_DAMPING, _GRIPPER_DAMPING = 300, 6, 9.165  # N/m, N s/m, N s/m

# Who touches whom: things (table, cabinet, drawer) 1, cube 2, fingers 4. The arm's links touch nothing.
_THING = 'contype="1" conaffinity="0"'
_CUBE = 'contype="2" conaffinity="5"'
_FINGER = 'contype="4" conaffinity="1"'
_GHOST = 'contype="0" conaffinity="0"'


def _joint(name: str, axis: str) -> str:
    low, high = ARM_RANGES[ARM_JOINTS.index(name)]
    return f'<joint name="{name}" axis="{axis}" range="{low} {high}" damping="{_SERVOS[name][1]}"/>'


_ARM = f"""
<body name="base" gravcomp="1">
  <geom type="cylinder" size=".048 .012" pos="0 0 .012" rgba=".22 .24 .28 1" {_GHOST}/>
  <geom type="cylinder" size=".036 .022" pos="0 0 .040" rgba=".95 .95 .93 1" {_GHOST}/>
  <body name="turret" pos="0 0 .06" gravcomp="1">
    {_joint("base_yaw", "0 0 1")}
    <geom type="cylinder" size=".032 .018" pos="0 0 .018" rgba=".95 .45 .12 1" mass=".2" {_GHOST}/>
    <geom type="box" size=".022 .026 .022" pos="0 0 .045" rgba=".95 .95 .93 1" mass=".1" {_GHOST}/>
    <body name="upper_arm" pos="0 0 .05" gravcomp="1">
      {_joint("shoulder_pitch", "0 1 0")}
      <geom type="cylinder" size=".025 .032" zaxis="0 1 0" rgba=".22 .24 .28 1" mass=".1" {_GHOST}/>
      <geom type="box" size=".017 .02 .07" pos="0 0 .08" rgba=".95 .95 .93 1" mass=".15" {_GHOST}/>
      <body name="forearm" pos="0 0 .16" gravcomp="1">
        {_joint("elbow_pitch", "0 1 0")}
        <geom type="cylinder" size=".022 .029" zaxis="0 1 0" rgba=".95 .45 .12 1" mass=".08" {_GHOST}/>
        <geom type="box" size=".03 .017 .015" pos=".045 0 0" rgba=".95 .95 .93 1" mass=".06" {_GHOST}/>
        <body name="forearm_tube" pos=".08 0 0" gravcomp="1">
          {_joint("forearm_roll", "1 0 0")}
          <geom type="cylinder" size=".014 .034" pos=".03 0 0" zaxis="1 0 0" rgba=".22 .24 .28 1" mass=".05"
                {_GHOST}/>
          <body name="wrist" pos=".08 0 0" gravcomp="1">
            {_joint("wrist_pitch", "0 1 0")}
            <geom type="cylinder" size=".017 .022" zaxis="0 1 0" rgba=".95 .45 .12 1" mass=".05" {_GHOST}/>
            <body name="hand" pos=".028 0 0" gravcomp="1">
              {_joint("wrist_roll", "1 0 0")}
              <geom type="box" size=".014 .015 .028" pos=".01 0 0" rgba=".22 .24 .28 1" mass=".06" {_GHOST}/>
              <geom type="box" size=".007 .012 .040" pos=".030 0 0" rgba=".95 .95 .93 1" mass=".04" {_GHOST}/>
              <camera name="wrist" pos=".012 .072 0" xyaxes="-.62 -.785 0 0 0 1" fovy="70"/>
              <site name="tip" pos=".084 0 0" size=".004" rgba="0 0 0 0"/>
              {{fingers}}
            </body>
          </body>
        </body>
      </body>
    </body>
  </body>
</body>"""

_FINGERS = "".join(
    f"""
<body name="finger_{side}" pos=".064 0 0" gravcomp="1">
  <joint name="finger_{side}" type="slide" axis="0 0 {sign}" range="0 {FINGER_TRAVEL}" armature=".05"
         damping="{damping}"/>
  <geom name="pad_{side}" type="box" size=".028 .009 .0045" pos="0 0 {sign * 0.0045}" rgba=".10 .62 .62 1"
        mass=".02" friction="1.4 .02 .001" {_FINGER}/>
</body>"""
    # The servo moves the left finger, which takes the right one along.
    for side, sign, damping in (("left", 1, _FINGER_DAMPING + _GRIPPER_DAMPING), ("right", -1, _FINGER_DAMPING))
)


def _drawer() -> str:
    half_x, half_y, floor, top = TRAY_HALF_X, TRAY_HALF_Y, TRAY_FLOOR, TRAY_WALL_TOP
    wall, mid = 0.003, (TRAY_FLOOR + TRAY_WALL_TOP) / 2
    half_z = (top - floor) / 2
    middle = TRAY_CENTRE_X - DRAWER_FRONT_X
    paint, face = "1 .86 .50 1", "1 .70 .22 1"
    return f"""
<body name="drawer" pos="{DRAWER_FRONT_X} {DRAWER_Y} 0">
  <joint name="drawer" type="slide" axis="-1 0 0" range="0 {DRAWER_TRAVEL}" damping="3" frictionloss=".35"
         armature=".05"/>
  <geom type="box" size="{half_x} {half_y} .002" pos="{middle} 0 {floor - 0.002}" rgba="{paint}" mass=".1" {_THING}/>
  <geom type="box" size="{half_x} {wall} {half_z}" pos="{middle} {half_y + wall} {mid}" rgba="{paint}" mass=".03"
        {_THING}/>
  <geom type="box" size="{half_x} {wall} {half_z}" pos="{middle} {-half_y - wall} {mid}" rgba="{paint}" mass=".03"
        {_THING}/>
  <geom type="box" size="{wall} {half_y} {half_z}" pos="{middle + half_x + wall} 0 {mid}" rgba="{paint}" mass=".03"
        {_THING}/>
  <geom type="box" size=".004 {half_y + 0.012} .027" pos=".004 0 .029" rgba="{face}" mass=".05" {_THING}/>
  <geom name="handle" type="box" size=".005 .024 .016" pos=".004 0 .072" rgba=".12 .16 .35 1" mass=".02" {_THING}/>
  <site name="handle" pos=".004 0 {HANDLE_HEIGHT}" size=".003" rgba="0 0 0 0"/>
</body>"""


def _cabinet() -> str:
    length = TRAY_HALF_X + 0.012
    middle = DRAWER_FRONT_X + 0.008 + length
    side = TRAY_HALF_Y + 0.010
    blue = ".30 .45 .66 1"
    return f"""
<geom type="box" size="{length} .004 .027" pos="{middle} {DRAWER_Y + side} .027" rgba="{blue}" {_THING}/>
<geom type="box" size="{length} .004 .027" pos="{middle} {DRAWER_Y - side} .027" rgba="{blue}" {_THING}/>
<geom type="box" size=".004 {side} .027" pos="{middle + length} {DRAWER_Y} .027" rgba="{blue}" {_THING}/>
<geom type="box" size="{length + 0.003} {side + 0.004} .002" pos="{middle} {DRAWER_Y} {CABINET_TOP - 0.002}"
      rgba=".45 .65 .90 .38" {_THING}/>"""


_CUBE_BODY = f"""
<body name="cube" pos=".19 -.11 {CUBE_HALF}">
  <freejoint name="cube"/>
  <geom name="cube" type="box" size="{CUBE_HALF} {CUBE_HALF} {CUBE_HALF}" rgba=".86 .10 .14 1" mass=".03"
        friction="1.2 .02 .001" {_CUBE}/>
</body>"""

_QUALITY = {
    # Rendering on a CPU is the bottleneck: shadows, multisampling and reflections are most of its cost.
    "fast": '<quality shadowsize="0" offsamples="0" numslices="14" numstacks="6"/>',
    "default": '<quality shadowsize="2048" offsamples="4"/>',
}


def scene_xml(preset: str = "fast") -> str:
    """The whole scene as MJCF.

    Raises:
        ConfigError: ``preset`` is neither ``fast`` nor ``default``.
    """
    check_preset(preset)
    motors = "".join(
        f'<position name="{name}" joint="{name}" kp="{kp}" ctrlrange="{low} {high}" forcerange="-{torque} {torque}"/>'
        for (name, (kp, _, torque)), (low, high) in zip(_SERVOS.items(), ARM_RANGES, strict=True)
    )
    return f"""
<mujoco model="tidy_drawer">
  <compiler angle="radian"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="5" iterations="50"
          ls_iterations="20" ccd_iterations="50"/>
  <size memory="2M"/>
  <visual>
    <global offwidth="1024" offheight="1024"/>
    {_QUALITY[preset]}
    <headlight ambient=".42 .42 .42" diffuse=".26 .26 .26" specular=".05 .05 .05"/>
    <map znear=".01" zfar="10"/>
  </visual>
  <statistic extent="1" center=".2 0 .05"/>
  <default>
    <joint armature=".01" damping=".3"/>
    <geom solref=".01 1" condim="3"/>
  </default>
  <worldbody>
    <light pos=".3 -.4 .9" dir="-.15 .4 -.9" directional="true" diffuse=".42 .42 .40" specular=".1 .1 .1"
           castshadow="{"false" if preset == "fast" else "true"}"/>
    <camera name="front" pos=".575 -.41 .48" xyaxes="0.7237 0.6901 0 -0.3887 0.4076 0.8263" fovy="42"/>
    <geom name="table" type="plane" size="4 4 .1" pos=".2 0 0" rgba=".80 .81 .80 1" friction="1 .01 .001"
          {_THING}/>
    {_ARM.format(fingers=_FINGERS)}
    {_cabinet()}
    {_drawer()}
    {_CUBE_BODY}
  </worldbody>
  <equality>
    <joint joint1="finger_left" joint2="finger_right" polycoef="0 1 0 0 0" solref=".01 1"/>
  </equality>
  <actuator>
    {motors}
    <position name="gripper" joint="finger_left" kp="{_GRIPPER_STIFFNESS}" ctrlrange="0 {FINGER_TRAVEL}"
              forcerange="-8 8"/>
  </actuator>
</mujoco>"""


def arm_xml() -> str:
    """The arm alone, without fingers, as the inverse kinematics needs it: six joints and the site ``tip``."""
    return f"""
<mujoco model="tidy_drawer_arm">
  <compiler angle="radian"/>
  <worldbody>{_ARM.format(fingers="")}</worldbody>
</mujoco>"""
