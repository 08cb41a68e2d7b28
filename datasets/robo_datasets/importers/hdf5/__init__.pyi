from robo_datasets.importers.hdf5.episodes import Hdf5EpisodesSource as Hdf5EpisodesSource
from robo_datasets.importers.hdf5.episodes import episode_files as episode_files
from robo_datasets.importers.hdf5.episodes import is_episode_file as is_episode_file
from robo_datasets.importers.hdf5.robomimic import RobomimicSource as RobomimicSource
