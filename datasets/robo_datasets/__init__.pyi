from robo_datasets import lerobot_progress as lerobot_progress
from robo_datasets.store.demo_store import DemoStore as DemoStore
from robo_datasets.store.derived import Derived as Derived
from robo_datasets.store.episode import Episode as Episode
from robo_datasets.store.episode import StageSegment as StageSegment
from robo_datasets.store.features import FeatureSpec as FeatureSpec
from robo_datasets.store.writer import EpisodeWriter as EpisodeWriter
