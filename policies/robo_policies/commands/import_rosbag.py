"""Bring rosbag2 recordings (SQLite or MCAP) into a demo store; no ROS installation is needed.

Topics become features as the robot contract says, or as a mapping file says. Frames stand at a steady rate on the
clock of the message headers; each takes the message that is held, or nearest, and no older than allowed. When messages
arrived is kept. Needs the package rosbags: pip install 'robo-rm[ros]'.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

import robo_hw
from robo_core.errors import ConfigError
from robo_datasets import importers
from robo_datasets.importers import rosbag
from robo_datasets.importers.settings import ImportConfig
from robo_hw.errors import ContractError
from robo_policies import recording

GROUP = "datasets"


@dataclass(frozen=True)
class Config(ImportConfig):
    """Settings of ``robo-rm import rosbag``."""

    source: str = MISSING
    """The bag: a rosbag2 folder, a .mcap or .db3 file, or a folder of such, one episode each."""
    robot: str = ""
    """Robot contract (a YAML file, or the name of a packaged one): its topics, joints, cameras, rates and deadlines."""
    mapping: str = ""
    """YAML file {fps, topics: [{topic, feature, align, max_age, fields, names, point, dtype, type, channel}]}; its
    features go before the contract's."""
    fps: float | None = None
    """Frames a second; the mapping's, or the contract's rate of actions by default."""
    gaps: str = "error"
    """What to do where a topic fell silent: error, or split the episode there."""
    min_seconds: float = 1.0
    """Pieces shorter than this are left out."""
    task: str = ""
    """The instruction of all episodes."""
    clock: str = "auto"
    """auto: header stamps, and messages without one are put on their clock; header: these count from their arrival;
    arrival: all messages do."""
    definitions: str = ""
    """Folder of message definitions (PACKAGE/msg/NAME.msg) for types that the bags do not define."""


def run(config: Config) -> None:
    """Import, then say what was added."""
    importers.start_helper(config.workers, config.store, "rosbag.source")

    importers.check_places(config, "rosbag")
    if config.gaps not in rosbag.GAPS:
        raise ConfigError(f"gaps={config.gaps} is not one of: {', '.join(rosbag.GAPS)}")
    if not config.robot and not config.mapping:
        raise ConfigError("give robot=CONTRACT or mapping=FILE, which say what the topics are")
    if config.fps is not None and not config.fps > 0:
        raise ConfigError(f"fps={config.fps} must be positive")
    fps, name, contract_hash, contract_data, mappings = config.fps, None, None, None, {}
    if config.robot:
        try:
            contract = robo_hw.RobotContract.load(config.robot)
        except ContractError as error:
            raise ConfigError(str(error)) from error
        name, contract_hash, contract_data = contract.robot, contract.hash, contract.to_dict()
        mappings = {mapping.feature: mapping for mapping in recording.contract_mappings(contract)}
        fps = fps or contract.rates.actions
    if config.mapping:
        own, rate = rosbag.read_mapping(config.mapping)
        mappings |= {mapping.feature: mapping for mapping in own}
        fps = config.fps or rate or fps
    if fps is None:
        raise ConfigError("give fps=30, for example; the mapping does not say")
    source = rosbag.RosbagSource(
        config.source,
        list(mappings.values()),
        fps,
        importers.frame_size(config.size),
        config.task,
        config.gaps,
        config.min_seconds,
        name,
        config.clock,
        Path(config.definitions) if config.definitions else None,
    )
    plan = importers.plan_import(source, config.store, config.stages, config.stage_names, config.success)
    importers.run_import(config, source, plan, contract_hash=contract_hash, contract=contract_data)
