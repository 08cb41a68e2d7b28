from robo_datasets.exporters.lerobot.exporter import export_lerobot as export_lerobot
from robo_datasets.exporters.lerobot.layout import LeRobotSettings as LeRobotSettings
