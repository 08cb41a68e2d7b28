from robo_datasets.importers.rosbag.mapping import read_mapping as read_mapping
from robo_datasets.importers.rosbag.source import GAPS as GAPS
from robo_datasets.importers.rosbag.source import RosbagSource as RosbagSource
