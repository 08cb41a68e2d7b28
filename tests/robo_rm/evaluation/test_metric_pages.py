"""The pages explain every metric, and give the bounds of the advice as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robo_rm.evaluation.advice import METRICS, USES

DOCS = Path(__file__).resolve().parents[3] / "docs"
SIGNS = {"high": ">=", "low": "<="}


@pytest.mark.parametrize("page", ["ideas.md", "evaluating.md"])
def test_every_metric_of_a_reward_model_is_explained(page):
    text = (DOCS / page).read_text()
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(METRICS) - explained == set()


def test_the_bounds_of_the_advice_are_those_of_the_code():
    section = (DOCS / "evaluating.md").read_text().partition("## The advice")[2]
    rows = [line for line in section.splitlines() if ">=" in line]
    wanted = [
        sorted((name, SIGNS[METRICS[name].better], bound) for name, bound in bounds.items())
        for _, bounds in USES.values()
    ]
    found = [
        sorted((name, sign, float(bound)) for name, sign, bound in re.findall(r"`(\w+)` ([<>]=) ([\d.]+)", row))
        for row in rows
    ]
    assert found == wanted
