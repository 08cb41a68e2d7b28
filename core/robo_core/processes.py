"""The executor under every parallel command: work on items in processes, over `concurrent.futures`.

Workers are fresh interpreters, or copies of a helper that loads libraries only (`start_helper`): safe beside torch's
threads and GL contexts. They do not run the user's script again, so a script needs no main guard; only work that is
defined in the script itself does. Each worker

- opens its state once (a store, an environment, a policy) and keeps it for all items,
- computes with one thread, since there is a process per core,
- ends with its parent, also when that is killed,
- leaves Ctrl-C to the parent, which stops it by SIGTERM: what it is at is unwound, so files half written are discarded,
- writes what libraries print into a log, of which the last line says why a worker died.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType, ModuleType
from typing import TypeVar, cast

from robo_core.errors import WorkerDiedError

Item = TypeVar("Item")
State = TypeVar("State")
Result = TypeVar("Result")

_SPARE = 1
"""Items handed out beyond one per worker, so that none waits for the next. More would only delay the first error."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# glibc's mallopt: how much freed memory is retained, and the size from which on a block is mapped by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BLOCK = 64 << 20, 32 << 20

_helper_runs = False


def run_in_processes(
    work: Callable[[State, Item], Result],
    items: Iterable[Item],
    processes: int,
    open_state: Callable[[], AbstractContextManager[State]],
    report: Callable[[Result], None],
    doing: str,
    resume: str = "",
    ordered: bool = False,
) -> None:
    """Call ``work(state, item)`` for every item and ``report`` each result in this thread.

    Args:
        work: a function of a module; as ``open_state``, which may be a `functools.partial`, it is pickled.
        items: picklable values; taken one by one, as workers become free.
        processes: worker processes; below 2 the work is done here.
        open_state: makes the state of a worker, which is closed when the worker ends.
        report: given each result as soon as it is there.
        doing: for the error when a worker process dies: what this is, such as "recording into demos.zarr".
        resume: for the same error: how to go on.
        ordered: report in the order of the items.

    Raises:
        WorkerDiedError: a worker process was killed or crashed.
        Exception: the first that ``work`` or ``open_state`` raises. No further item is begun then; what other workers
            are at is finished and reported before it is raised. An error of ``report`` and Ctrl-C stop them instead.
    """
    if processes < 2:
        with open_state() as state:
            for item in items:
                report(work(state, item))
        return
    payload = pickle.dumps((work, open_state))
    context = multiprocessing.get_context("forkserver" if _helper_runs else "spawn")
    with tempfile.TemporaryDirectory(prefix="robo-rm-workers-", ignore_cleanup_errors=True) as logs:
        pool = ProcessPoolExecutor(processes, context, _prepare, (payload, logs))

        def submit(item: object) -> Future[object]:
            with _starting(with_main=b"__main__" in payload):  # a process is started here while there are too few
                return pool.submit(_call, item)

        try:
            for result in _results(submit, items, processes + _SPARE, ordered):
                report(cast("Result", result))
        except (BrokenProcessPool, _Stopped) as error:
            what = f"a worker process died while {doing} ({_last_line(Path(logs))})"
            raise WorkerDiedError(f"{what}; {resume}" if resume else what) from error
        except BaseException:
            for process in (pool._processes or {}).values():
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def start_helper(*modules: str) -> None:
    """Start loading modules that workers will need into a helper process; returns at once.

    Workers are then copies of the helper. It stays until this process ends, so this is for commands, not for functions
    that programs call.
    """
    global _helper_runs
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    forkserver.set_forkserver_preload([__name__, *modules])
    # No process or socket is available: the workers will say so.
    with suppress(OSError), _starting(with_main=False):
        forkserver.ensure_running()
        _helper_runs = True


def _results(
    submit: Callable[[object], Future[object]], items: Iterable[object], most: int, ordered: bool
) -> Iterator[object]:
    """Results as they come, or in order; the first error after the results of all that had begun."""
    waiting = enumerate(items)
    pending: dict[Future[object], int] = {}
    held: dict[int, object] = {}
    due = 0
    failure: BaseException | None = None
    while True:
        while failure is None and len(pending) < most and (entry := next(waiting, None)) is not None:
            pending[submit(entry[1])] = entry[0]
        if not pending:
            break
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=pending.__getitem__):
            number = pending.pop(future)
            if future.cancelled():
                continue
            error = future.exception()
            if error is None:
                held[number] = future.result()
            elif failure is None:
                failure = error
                for other in pending:
                    other.cancel()
        if ordered and failure is None:
            while due in held:
                yield held.pop(due)
                due += 1
        else:
            yield from [held.pop(number) for number in sorted(held)]
    if failure is not None:
        raise failure


def _last_line(logs: Path) -> str:
    """The last thing that a worker printed, which is what a crashed library says."""
    texts = [path.read_text(errors="replace").strip() for path in sorted(logs.iterdir(), key=os.path.getmtime)]
    lines = [line for text in texts for line in text.splitlines()[-1:]]
    return lines[-1] if lines else "killed; out of memory?"


@contextmanager
def _starting(with_main: bool) -> Iterator[None]:
    """What a child that is started now inherits."""
    main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in _ONE_THREAD}
    # Blocked, not ignored: a Ctrl-C that comes now reaches this process afterwards.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(_ONE_THREAD)
    if not with_main:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


# -- in a worker ------------------------------------------------------------------------------------------------------


class _Stopped(BaseException):
    """Raised where a worker is when its parent stops it."""


_payload = b""
_opened: tuple[Callable[[object, object], object], object] | None = None
_stopping = False


def _prepare(payload: bytes, logs: str) -> None:
    global _payload
    _payload = payload
    # A worker that is a copy of the helper does not inherit it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = os.open(Path(logs) / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    _keep_memory()


def _keep_memory() -> None:
    """Keep freed images for the next ones.

    glibc gives them back to the kernel, which clears the pages and hands them out again, frame by frame: a tenth of the
    time of an import.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever, and hold on to its item."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(item: object) -> object:
    global _opened
    if _stopping:
        raise _Stopped
    # Only while it works: a worker that waits or starts is ended at once.
    signal.signal(signal.SIGTERM, _stop)
    try:
        if _opened is None:
            work, open_state = pickle.loads(_payload)
            stack = ExitStack()
            _opened = work, stack.enter_context(open_state())
            # Not atexit: a worker that is a copy of the helper ends without it.
            Finalize(None, stack.close, exitpriority=0)
            gc.freeze()  # what is loaded by now stays: the collector need not go through it again and again
        return _opened[0](_opened[1], item)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    global _stopping
    if not _stopping:  # a second one must not break off the unwinding
        _stopping = True
        raise _Stopped
