"""Builds the ROS 2 package, with robo_hw and robo_core, which it stands on: a robot needs nothing else of robo-rm."""

import os
from glob import glob

from setuptools import find_packages, setup

NAME = "robo_rm_bridge"
# Both need Python 3.10 only, the distribution around them 3.11; so they are installed from here.
HARDWARE = os.path.join("..", "..", "robo_hw")
FOUNDATION = os.path.join("..", "..", "..", "core", "robo_core")
for folder in (HARDWARE, FOUNDATION):
    if not os.path.isfile(os.path.join(folder, "__init__.py")):
        raise SystemExit(
            f"{NAME}: {folder} does not exist; build in a clone of the whole repository "
            "(colcon build --base-paths path/to/robo-rm/hw/ros2)"
        )

# Of robo_core without its command line.
core_packages = ["robo_core", "robo_hw", *(f"robo_hw.{name}" for name in find_packages(HARDWARE))]

setup(
    name=NAME,
    version="0.1.0",
    description="Runs robo-rm policies on an arm through ROS 2, behind the safety core of robo_hw",
    license="Apache-2.0",
    maintainer="The robo-rm authors",
    maintainer_email="robo-rm@example.com",
    packages=[*find_packages(include=[NAME, f"{NAME}.*"]), *core_packages],
    package_dir={"robo_hw": HARDWARE, "robo_core": FOUNDATION},
    package_data={"": ["py.typed", "*.pyi"], "robo_hw": ["contracts/*.yaml"]},
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
            f"{node} = {NAME}.entry_points:main"
            for node in ("policy_node", "recorder_node", "monitor_node", "mujoco_arm_node")
        ]
    },
)
