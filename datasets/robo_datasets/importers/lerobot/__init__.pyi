from robo_datasets.importers.lerobot.alignment import LeRobotReading as LeRobotReading
from robo_datasets.importers.lerobot.v2 import LeRobotV2Source as LeRobotV2Source
from robo_datasets.importers.lerobot.v3 import LeRobotV3Source as LeRobotV3Source
from robo_datasets.importers.lerobot.v3 import is_v3 as is_v3
from robo_datasets.importers.lerobot.v3_meta import ANNOTATIONS as ANNOTATIONS
