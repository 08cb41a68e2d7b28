"""The executor of all parallel commands: results, errors, interrupts, and the death of either side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
from process_jobs import crash, describe, fail_at_two, first_then_hold, folder_state, reversed_delay, square

from robo_core import processes
from robo_core.errors import StoreError, WorkerDiedError
from robo_core.processes import run_in_processes, start_helper


@pytest.mark.parametrize("count", [1, 2])
def test_every_item_is_done_once(count):
    results: list[int] = []
    run_in_processes(square, iter(range(20)), count, nullcontext, results.append, "testing")
    assert sorted(results) == [number * number for number in range(20)]


def test_results_come_in_order_where_that_is_asked_for():
    results: list[int] = []
    run_in_processes(reversed_delay, range(8), 2, nullcontext, results.append, "testing", ordered=True)
    assert results == list(range(8))


@pytest.fixture(params=["spawned", "copied"])
def start(request, monkeypatch):
    """How workers are started: as new processes, or as copies of a helper, as in a command that started one."""
    if request.param == "copied":
        start_helper()
    monkeypatch.setattr(processes, "_helper_runs", request.param == "copied")


@pytest.mark.usefixtures("start")
def test_workers_compute_with_one_thread_and_leave_interrupts_and_the_terminal_alone(capfd):
    before = os.environ.get("OMP_NUM_THREADS")
    results: list[tuple[int, str | None, bool]] = []
    run_in_processes(describe, range(6), 2, nullcontext, results.append, "testing")
    assert os.environ.get("OMP_NUM_THREADS") == before
    assert os.getpid() not in {pid for pid, _, _ in results}
    assert {(threads, blocked) for _, threads, blocked in results} == {("1", True)}
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("start")
def test_a_state_is_opened_once_a_worker_and_closed(tmp_path):
    run_in_processes(fail_at_two, [0, 1, 3, 4, 5], 2, partial(folder_state, tmp_path), lambda result: None, "testing")
    opened = {path.name.partition("-")[2] for path in tmp_path.glob("opened-*")}
    assert 1 <= len(opened) <= 2
    assert {path.name.partition("-")[2] for path in tmp_path.glob("closed-*")} == opened


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_error_is_raised_as_it_is_after_what_had_begun(tmp_path, count):
    results: list[int] = []
    with pytest.raises(StoreError, match="item 2 is bad"):
        run_in_processes(fail_at_two, range(50), count, partial(folder_state, tmp_path), results.append, "testing")
    began = {int(path.name.partition("-")[2]) for path in tmp_path.glob("began-*")}
    assert began == {*results, 2}, "what had begun was reported"
    assert len(began) < 10, "items were begun after the error"


def test_an_error_of_the_caller_stops_the_workers(tmp_path):
    def report(result: int) -> None:
        raise StoreError("the disk is full")

    started = time.monotonic()
    with pytest.raises(StoreError, match="the disk is full"):
        run_in_processes(first_then_hold, range(4), 2, partial(folder_state, tmp_path), report, "testing")
    assert time.monotonic() - started < 30
    assert list(tmp_path.glob("unwound-*")), "the other worker was not unwound"


def test_a_worker_that_dies_is_reported_with_the_last_thing_it_said():
    with pytest.raises(
        WorkerDiedError, match=r"^a worker process died while testing \(the driver gave up\); run it again$"
    ):
        run_in_processes(crash, range(4), 2, nullcontext, lambda result: None, "testing", "run it again")


SCRIPT = """
import sys
from pathlib import Path
from contextlib import nullcontext
from functools import partial
from robo_core.processes import run_in_processes
sys.path.insert(0, {helpers!r})
from process_jobs import folder_state, hold
Path({folder!r}, "script").open("a").write("x")
run_in_processes(hold, range(4), 2, partial(folder_state, Path({folder!r})), print, "testing")
"""


def start_script(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A script without a main guard whose two workers are at work, and their process ids."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(helpers=str(Path(__file__).parents[1] / "helpers"), folder=str(folder)))
    process = subprocess.Popen(
        [sys.executable, script],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while len(found := list(folder.glob("pid-*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, [int(path.name.partition("-")[2]) for path in found]


def ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_an_interrupt_unwinds_the_workers_and_a_script_needs_no_guard(tmp_path):
    process, workers = start_script(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches every process of the group
    assert process.wait(30) != 0
    assert all(ended(pid) for pid in workers)
    assert len(list(tmp_path.glob("unwound-*"))) == 2
    assert (tmp_path / "script").read_text() == "x", "a worker ran the script again"


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    process, workers = start_script(tmp_path)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while not all(ended(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
