"""Losses as compiled code, where that is asked for."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from robo_datasets.errors import MissingPartError

COMPILERS = ("g++", "clang++", "c++", "cl")
WAYS_OUT = "install a C++ compiler and the headers of Python, or leave learner.compile=true out"


def compiled(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """A function of tensors as compiled code; it is compiled at its first call.

    Raises:
        MissingPartError: there is no C++ compiler; or, at the first call, compiling fails.
    """
    if device == "cpu" and not (os.environ.get("CXX") or any(shutil.which(name) for name in COMPILERS)):
        raise MissingPartError(f"learner.compile=true finds none of {', '.join(COMPILERS)}; {WAYS_OUT}")
    # It would say that there is no CUDA, which a user of a CPU knows.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    fast = torch.compile(function, dynamic=False)
    known = False

    def call(*arguments: Any) -> Any:
        nonlocal known
        if known:
            return fast(*arguments)
        try:
            made = fast(*arguments)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise MissingPartError(f"learner.compile=true: compiling failed ({reason}); {WAYS_OUT}") from error
        known = True
        return made

    return call
