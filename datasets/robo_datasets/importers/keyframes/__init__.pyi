from robo_datasets.importers.keyframes.source import FITS as FITS
from robo_datasets.importers.keyframes.source import KeyframeSource as KeyframeSource
