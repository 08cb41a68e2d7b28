"""Exit codes, and the line that says why.

0 done, 1 the command's own finding (``doctor`` found errors), 2 a mistake that the user can fix, 130 interrupted,
141 the reader of the output has gone.
"""

from __future__ import annotations

import errno
import os
import select
import sys

from robo_core.errors import RoboError

# Modules of the optional parts, and the extra that brings each.
EXTRAS = {
    "mujoco": "sim",
    "gymnasium": "sim",
    "mink": "sim",
    "lerobot": "lerobot",
}
# Faults of the machine that the user can fix; any other OSError is a defect of ours and keeps its traceback.
USER_ERRNOS = (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT)


def outcome(error: BaseException) -> tuple[int, str | None]:
    """Return the exit code of what a command raised, and a line for the user: empty for none, None for a defect."""
    if isinstance(error, RoboError):
        return 2, " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is not None:
            return 2, f"needs {error.name}, which is not installed: pip install 'robo-rm[{extra}]'"
    if isinstance(error, SystemExit):  # a command's own finding, such as doctor's errors
        return (error.code if isinstance(error.code, int) else 0 if error.code is None else 1), ""
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted; run the same command again to resume"
    if isinstance(error, OSError) and error.errno in USER_ERRNOS:
        return 2, f"{error.filename or 'writing'}: {error.strerror}"
    return 1, None


def reader_gone() -> bool:
    """Whether standard output or error is a pipe that nobody reads any more (head, less); what is left is dropped."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
            poll = select.poll()
            poll.register(number, 0)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                gone = True
        except (OSError, ValueError):  # no file behind it, or closed
            continue
    return gone
