"""The type of arrays whose elements are known only at run time."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""One feature of a data set, one observation of a robot: the feature says which elements it has."""
