"""Losses as compiled code, where that is asked for."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from robo_core.console import say
from robo_core.errors import MissingPartError
from robo_policies.rl.settings import LearnerSettings, SacSettings

COMPILERS = ("g++", "clang++", "c++", "cl")
WAYS_OUT = "install a C++ compiler and the headers of Python, or give learner.compile=false"
WORTH_IT = 20_000
"""Control steps from which a run gains several times what compiling costs."""


def decide_compiling(settings: LearnerSettings, steps: int, device: str) -> LearnerSettings:
    """Settle what `SacSettings.compile` leaves open, for a run of so many control steps."""
    if not isinstance(settings, SacSettings) or settings.compile is not None:
        return settings
    worth_it = device == "cpu" and steps >= WORTH_IT
    if worth_it:
        say("compiling what the learner computes, which takes up to a minute (not with learner.compile=false)")
    return replace(settings, compile=worth_it and can_compile())


def can_compile() -> bool:
    """Whether compiling works here; tried, since a compiler without Python's headers is of no use."""
    try:
        compiled(torch.square, "cpu")(torch.ones(2))
    except MissingPartError:
        return False
    return True


def compiled(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """A function of tensors as compiled code; it is compiled at its first call.

    Raises:
        MissingPartError: there is no C++ compiler; or, at the first call, compiling fails.
    """
    if device == "cpu" and not (os.environ.get("CXX") or any(shutil.which(name) for name in COMPILERS)):
        raise MissingPartError(f"learner.compile=true finds none of {', '.join(COMPILERS)}; {WAYS_OUT}")
    # It would say that there is no CUDA, which a user of a CPU knows.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    fast: Callable[..., Any] | None = None

    def call(*arguments: Any) -> Any:
        nonlocal fast
        if fast is not None:
            return fast(*arguments)
        try:
            made = (attempt := torch.compile(function, dynamic=False))(*arguments)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise MissingPartError(f"learner.compile=true: compiling failed ({reason}); {WAYS_OUT}") from error
        fast = attempt
        return made

    return call
