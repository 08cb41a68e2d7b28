"""Builds the ROS 2 package, and robo_hw with it: a robot needs nothing else of robo-rm."""

import os
from glob import glob

from setuptools import find_packages, setup

NAME = "robo_rm_bridge"
# robo_hw asks for Python 3.10 only, the distribution around it for 3.11; so it is installed from here.
CORE = os.path.join("..", "..", "robo_hw")
if not os.path.isfile(os.path.join(CORE, "__init__.py")):
    raise SystemExit(
        f"{NAME}: hw/robo_hw is not beside hw/ros2; build in a clone of the whole repository "
        "(colcon build --base-paths path/to/robo-rm/hw/ros2)"
    )

core_packages = ["robo_hw", *(f"robo_hw.{name}" for name in find_packages(CORE))]

setup(
    name=NAME,
    version="0.1.0",
    description="Runs robo-rm policies on an arm through ROS 2, behind the safety core of robo_hw",
    license="Apache-2.0",
    maintainer="The robo-rm authors",
    maintainer_email="robo-rm@example.com",
    packages=[*find_packages(include=[NAME, f"{NAME}.*"]), *core_packages],
    package_dir={"robo_hw": CORE},
    package_data={"robo_hw": ["contracts/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*.yaml"))),
    ],
    python_requires=">=3.10",
    install_requires=["setuptools", "numpy>=1.21", "msgpack>=1.0", "pyyaml>=5.4"],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            f"policy_node = {NAME}.mains:policy",
            f"recorder_node = {NAME}.mains:recorder",
            f"monitor_node = {NAME}.mains:monitor",
            f"mujoco_arm_node = {NAME}.mains:mujoco_arm",
        ]
    },
)
