from robo_datasets.exporters.command import finish as finish
from robo_datasets.exporters.command import open_store as open_store
