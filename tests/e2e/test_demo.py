"""The whole line, small: every part runs, the page is whole, and a second call does nothing again."""

from __future__ import annotations

import json
import re

SMALL = ["episodes=12", "held_out=6", "image_size=32", "reward_steps=12", "policy_steps=5", "rollouts=2"]


def test_the_demo_goes_from_recording_to_a_page_that_needs_nothing_else(tmp_path, run_command):
    out = tmp_path / "demo"
    code, text, errors = run_command("demo", f"out={out}", *SMALL)
    assert code == 0, errors
    assert len(re.findall(r"^\[\d/8\]", text, flags=re.MULTILINE)) == 8
    assert "robo-rm train-policy" in text
    assert re.search(r"this takes about \d+ minutes on this machine as busy as it is now", text)
    assert json.loads((out / "reward_model" / "metrics.json").read_text())["ended_by"] == "steps"

    page = (out / "report.html").read_text()
    assert len(re.findall(r'src="data:image/', page)) >= 4
    assert not re.search(r'src="(?!data:)', page)
    links = set(re.findall(r'href="([^"]+)"', page))
    assert links >= {"reward_report/report.html", "evaluation_none/report.html", "evaluation_rabc/report.html"}
    assert all((out / link).is_file() for link in links)
    part = (out / "reward_report/report.html").read_text()
    assert '<a href="../report.html">' in part
    assert "robo-rm eval-reward" in part, "the command that made it"
    # The steps do not say what follows them: the demo does.
    assert re.findall(r"^next: .*", text, flags=re.MULTILINE) == [
        "next: robo-rm import lerobot source=YOUR_DATASET store=demos.zarr"
    ]

    metrics = json.loads((out / "metrics.json").read_text())
    assert {"bc_success_rate", "rabc_success_rate", "gain_points", "reward_auroc", "reward_mse"} <= metrics.keys()
    assert 0 <= metrics["rabc_success_low"] <= metrics["rabc_success_rate"] <= metrics["rabc_success_high"] <= 1
    assert metrics["seconds"] > 0

    code, text, _ = run_command("demo", f"out={out}", *SMALL)
    assert code == 0
    assert text.count("already done") == 8
    assert "this takes about" not in text
