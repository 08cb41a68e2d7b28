"""Features of a dataset that robo-rm exported: what it noted of the store goes before what the format could say."""

from __future__ import annotations

import math
from typing import cast

from robo_core.errors import ImportSourceError, StoreError
from robo_datasets.store.features import FeatureSpec, parse_features

_ANY = "restored-feature"


def restored_feature(key: str, made: FeatureSpec, noted: object, where: str) -> FeatureSpec:
    """The feature as noted, where that fits the data: the same numbers in another shape, or a channel of a grey video.

    Args:
        key: feature key.
        made: what the dataset itself declares.
        noted: what robo-rm noted, untrusted; None for a dataset of another origin.
        where: the dataset or file, for errors.

    Raises:
        ImportSourceError: no store can hold the feature.
    """
    try:
        # Keys that no store can have are changed later (robo_datasets.importers.selection).
        declared = parse_features({_ANY: made})[_ANY]
        if not isinstance(noted, dict):
            return made
        feature = parse_features({_ANY: noted})[_ANY]
    except StoreError as error:
        raise ImportSourceError(f"{where}: {str(error).replace(_ANY, key)}") from error
    grey = feature.is_frames and feature.shape[:2] == declared.shape[:2] and feature.shape[2] == 1
    same = math.prod(feature.shape) == math.prod(declared.shape) and feature.dtype == declared.dtype
    return cast(FeatureSpec, {**noted, "shape": feature.shape}) if same or grey else made
