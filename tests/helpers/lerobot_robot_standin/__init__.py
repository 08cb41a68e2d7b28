"""A robot of LeRobot's as a third party ships one: an arm like the SO-101 that follows its commands, and plays faults.

What goes wrong is read from the attribute ``faults``, or in another process from the JSON file ``control``.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
HOME = (5.0, -60.0, 70.0, 30.0, -20.0, 40.0)


@RobotConfig.register_subclass("standin")
@dataclass
class StandInConfig(RobotConfig):
    port: str = ""
    control: str = ""
    """JSON file with what goes wrong."""
    log: str = ""
    """File that every action is appended to, and connect and disconnect."""
    disable_torque_on_disconnect: bool = True
    motors: list[str] = field(default_factory=lambda: list(MOTORS))
    height: int = 48


class StandIn(Robot):
    config_class = StandInConfig
    name = "standin"

    def __init__(self, config: StandInConfig) -> None:
        super().__init__(config)
        self.config = config
        self.faults: dict[str, Any] = {}
        self.positions = np.array(HOME[: len(config.motors)])
        self.actions: list[dict[str, float]] = []
        self.calls: list[str] = []
        self._connected = False
        self._frames = 0

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**self.action_features, "front": (self.config.height, 64, 3)}

    @property
    def action_features(self) -> dict[str, type]:
        return {f"{motor}.pos": float for motor in self.config.motors}

    @property
    def is_connected(self) -> bool:
        return self._connected and not self._fault("unplugged")

    @property
    def is_calibrated(self) -> bool:
        return not self._fault("uncalibrated")

    def connect(self, calibrate: bool = True) -> None:
        assert not calibrate, "a run must never begin to calibrate"
        if self._fault("no_port"):
            raise ConnectionError(
                f"\nCould not connect on port '{self.config.port}'.\nTry running `lerobot-find-port`\n"
            )
        self._note("connect")
        self._connected = True

    def calibrate(self) -> None:
        raise AssertionError("a run must never begin to calibrate")

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        if not self.is_connected:
            raise ConnectionError("the port is closed")
        time.sleep(float(self._fault("slow") or 0.0))
        if self._fault("read"):
            raise ConnectionError("Failed to sync read 'Present_Position': [TxRxResult] There is no status packet!")
        seen = {f"{motor}.pos": float(value) for motor, value in zip(self.config.motors, self.positions, strict=True)}
        seen.pop(self._fault("missing") or "", None)
        if self._fault("nan"):
            seen[self._fault("nan")] = float("nan")
        if self._fault("jump"):
            seen[self._fault("jump")] += 90.0
        camera = self._fault("camera")
        self._frames += camera != "frozen"
        image = np.full((self.config.height, 64, 3), self._frames % 251, np.uint8)
        changed = {"none": None, "empty": np.zeros((0, 0, 3), np.uint8), "small": image[:10], "float": image / 255.0}
        seen["front"] = changed.get(camera, image)
        if camera == "gone":
            del seen["front"]
        return seen

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        if not self.is_connected:
            raise ConnectionError("the port is closed")
        time.sleep(float(self._fault("slow_write") or 0.0))
        if self._fault("write"):
            raise ConnectionError("Failed to sync write 'Goal_Position'")
        self.actions.append(dict(action))
        self._note(json.dumps(action))
        if not self._fault("stuck"):
            self.positions = np.array([action[f"{motor}.pos"] for motor in self.config.motors])
        return action

    def disconnect(self) -> None:
        if self._connected:
            self._note("disconnect")
        self._connected = False

    def _fault(self, name: str) -> Any:
        if self.config.control and os.path.exists(self.config.control):
            try:
                return json.loads(Path(self.config.control).read_text()).get(name)
            except ValueError:  # being written
                return None
        return self.faults.get(name)

    def _note(self, line: str) -> None:
        self.calls.append(line)
        if self.config.log:
            with open(self.config.log, "a") as file:
                file.write(line + "\n")
