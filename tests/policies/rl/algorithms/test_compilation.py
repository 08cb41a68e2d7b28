"""Compiled losses learn the same; where nothing can be compiled, that is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robo_core.errors import MissingPartError
from robo_policies.rl.algorithms.compilation import MIN_STEPS, decide_compiling
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.settings import IqlSettings, LearnerSettings, SacSettings
from robo_policies.rl.storage.replay_buffer import Batch

SETTINGS = SacSettings(width=16, batch_size=32, critics=3, compile=True)


def batch(rng: np.random.Generator) -> Batch:
    rows = [rng.normal(size=shape).astype(np.float32) for shape in ((16, 3), (16, 1), 16, 16, (16, 3), (16, 1), 16)]
    return Batch(*rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch, while it compiles
def test_compiled_losses_learn_the_same() -> None:
    fast, plain = (Sac(3, 1, replace(SETTINGS, compile=way), seed=0, use_prior=True) for way in (True, False))
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    for _ in range(9):
        losses = fast.update(batch(rng), batch(rng))
        assert losses == pytest.approx(plain.update(batch(again), batch(again)), rel=1e-3, abs=1e-5)
    for name, value in plain.state().items():
        np.testing.assert_allclose(fast.state()[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_missing_compiler_is_told_before_anything_is_learnt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingPartError, match=r"finds none of g\+\+.*give learner.compile=false"):
        Sac(3, 1, SETTINGS, seed=0)


def test_a_compiler_that_fails_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def call(*_: Any) -> Any:
            raise RuntimeError("Python.h: No such file or directory\nand much more")

        return call

    monkeypatch.setenv("CXX", "g++")
    monkeypatch.setattr(torch, "compile", broken)
    rng = np.random.default_rng(0)
    learner = Sac(3, 1, SETTINGS, seed=0)
    with pytest.raises(
        MissingPartError, match=r"compiling failed \(Python.h: No such file or directory\); install"
    ) as error:
        learner.update(batch(rng), None)
    assert "much more" not in str(error.value)


@pytest.mark.parametrize(
    ("steps", "device", "works", "expected"),
    [
        (MIN_STEPS, "cpu", True, True),
        (MIN_STEPS - 1, "cpu", True, False),
        (MIN_STEPS, "cuda", True, False),
        (MIN_STEPS, "cpu", False, False),
    ],
    ids=["long", "short", "gpu", "no_compiler"],
)
def test_long_runs_compile_where_that_works(
    monkeypatch: pytest.MonkeyPatch, steps: int, device: str, works: bool, expected: bool
) -> None:
    def maybe(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        if not works:
            raise RuntimeError("Python.h: No such file or directory")
        return function

    monkeypatch.setenv("CXX", "g++")
    monkeypatch.setattr(torch, "compile", maybe)
    assert decide_compiling(SacSettings(), steps, device) == SacSettings(compile=expected)


@pytest.mark.parametrize(
    "settings", [SacSettings(compile=True), SacSettings(compile=False), IqlSettings()], ids=["asked", "refused", "iql"]
)
def test_what_was_chosen_is_kept(settings: LearnerSettings) -> None:
    assert decide_compiling(settings, MIN_STEPS, "cpu") == settings
