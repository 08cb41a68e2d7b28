"""Compiled losses, where they are worth it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from robo_core.console import say
from robo_core.errors import MissingPartError
from robo_policies.rl.settings import LearnerSettings, SacSettings

COMPILERS = ("g++", "clang++", "c++", "cl")
HINT = "install a C++ compiler and the headers of Python, or give learner.compile=false"
MIN_STEPS = 20_000
"""Control steps from which a run gains several times what compiling costs."""

Result = TypeVar("Result")


def decide_compiling(settings: LearnerSettings, steps: int, device: str) -> LearnerSettings:
    """Resolve `SacSettings.compile=None` for a run of so many control steps."""
    if not isinstance(settings, SacSettings) or settings.compile is not None:
        return settings
    long = device == "cpu" and steps >= MIN_STEPS
    if long:
        say("compiling the losses takes up to a minute; learner.compile=false leaves it out")
    return replace(settings, compile=long and can_compile())


def can_compile() -> bool:
    """Whether compiling works here; it is tried, since a compiler without Python's headers is of no use."""
    try:
        compiled(torch.square, "cpu")(torch.ones(2))
    except MissingPartError:
        return False
    return True


def compiled(function: Callable[..., Result], device: str) -> Callable[..., Result]:
    """A function of tensors as compiled code, compiled at its first call.

    Raises:
        MissingPartError: there is no C++ compiler; or, at the first call, compiling fails.
    """
    if device == "cpu" and not (os.environ.get("CXX") or any(shutil.which(name) for name in COMPILERS)):
        raise MissingPartError(f"learner.compile=true finds none of {', '.join(COMPILERS)}; {HINT}")
    # It warns that there is no CUDA, which a user of a CPU knows.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    fast: Callable[..., Result] | None = None

    def call(*arguments: object) -> Result:
        nonlocal fast
        if fast is not None:
            return fast(*arguments)
        try:
            result = (attempt := torch.compile(function, dynamic=False))(*arguments)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise MissingPartError(f"learner.compile=true: compiling failed ({reason}); {HINT}") from error
        fast = attempt
        return result

    return call
