"""Images that would starve a control loop: huge, oversized, lying, slow. The loop and the emergency stop go on."""

from __future__ import annotations

import time

import numpy as np
import pytest
from rig import HERE, Process, Rig, patient_contract, rig

FRONT, WRIST = "/front/image_raw/compressed", "/wrist/image_raw"


class ImageRig(Rig):
    """One camera sends JPEG, the other raw images."""

    def contract_text(self) -> str:
        text = patient_contract()
        assert "topic: front/image_raw," in text
        return text.replace("topic: front/image_raw,", f"topic: {FRONT},")

    def flood(self, *words: str) -> Process:
        """Publish what should not come, until it is ended."""
        flood = self.child(Process("image_flood", [str(HERE / "image_flood.py"), *words], self.folder, talks=True))
        flood.hear("flooding")
        return flood


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("images"), ImageRig) as made:
        yield made


@pytest.fixture
def running(processes: ImageRig) -> ImageRig:
    processes.run()
    return processes


def longest_gap(rig: Rig) -> float:
    """The longest time between two commands, s."""
    stamps = np.array([entry[0] for entry in rig.observer.commanded], dtype=np.int64)
    return float(np.diff(stamps).max()) * 1e-9


@pytest.mark.parametrize(
    ("flood", "said"),
    [
        (f"{FRONT}=png14k", "camera front: 14000 x 14000 pixels, the contract has 128 x 128"),
        (f"{FRONT}=jpeg4k", "camera front: 3840 x 2160 pixels, the contract has 128 x 128"),
        (f"{WRIST}=raw", "camera wrist: 1280 x 720 pixels, the contract has 128 x 128"),
        (f"{WRIST}=lying_step", "camera wrist: step 2147483648 is"),
        (f"{WRIST}=lying_encoding", "camera wrist: step 384 is 3 bytes per pixel, but the encoding mono8 has 1"),
    ],
)
def test_images_that_are_none_of_the_contracts_disturb_neither_the_loop_nor_the_emergency_stop(running, flood, said):
    made = running.flood(flood)
    try:
        running.wait("it is told", lambda: said in running.said(), 15.0)
        running.spin(1.5)
        assert running.state in ("running", "holding"), running.said()[-2000:]
        assert longest_gap(running) < 0.5, "one such image took the loop away for seconds"
        published = time.time_ns()
        assert running.observer.trigger("/robo_rm_policy/estop")[0]
        running.wait_state("fault")
        moving = [entry[0] for entry in running.observer.commanded if entry[1] == "running"]
        assert (moving[-1] - published) * 1e-9 < 0.5
    finally:
        made.end()
    running.keeps_the_limits()


def test_a_process_of_the_cameras_that_is_killed_is_started_again_and_the_arm_goes_on_after_a_rest(running):
    import os
    import signal
    from pathlib import Path

    children = Path(f"/proc/{running.bridge.popen.pid}/task/{running.bridge.popen.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    running.wait("it is told", lambda: "the process that receives images ended (code -9)" in running.said())
    running.wait("the policy acts again", lambda: running.said().count("holding -> running") >= 1, 15.0)
    running.keeps_the_limits()
