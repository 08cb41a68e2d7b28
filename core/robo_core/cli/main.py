"""The entry point: pick the verb, compose its settings, run it, turn a user's mistake into one line.

Exit codes: 0 done, 1 the verb's own finding (``doctor`` found errors), 2 a mistake the user can mend,
130 interrupted.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType

from robo_core.cli.verbs import find_verbs, pick_verb
from robo_core.errors import RoboError

# Modules of the optional parts, and the extra that brings each.
EXTRAS = {
    "mujoco": "sim",
    "gymnasium": "sim",
    "mink": "sim",
    "lerobot": "lerobot",
}
# Faults of the machine that the user can mend; any other OSError is a defect of ours and keeps its traceback.
USER_ERRNOS = (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT)


def main(arguments: list[str] | None = None) -> int:
    """Run ``robo-rm`` with ``arguments`` (default: the process's own) and return its exit code."""
    # Threads that spin while they wait take the cores from the process that loads their data, and from other work on
    # the machine; read by the OpenMP of torch when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbs = find_verbs()
    if not words or words[0] in ("-h", "--help", "help"):
        from robo_core.cli.help import print_overview

        print_overview(verbs)
        return 0
    if words[0] == "--version":
        from robo_core import __version__

        print(f"robo-rm {__version__}")
        return 0
    name = ""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        verb, rest = pick_verb(words, verbs)
        name = f" {verb.words}"
        if any(word in ("-h", "--help") for word in rest):
            from robo_core.cli.help import print_verb_help

            print_verb_help(verb, rest)
            return 0
        from robo_core.cli.compose import compose_settings

        settings = compose_settings(verb, rest)
        if not getattr(verb.module, "OUT_IS_A_FILE", False):
            _check_out(settings, getattr(verb.module, "OUT_HOLDS", ""))
        verb.module.run(settings)
        return 0
    except RoboError as error:
        return _fail(name, " ".join(str(error).split()))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _fail(name, f"needs {error.name}, which is not installed: pip install 'robo-rm[{extra}]'")
    except SystemExit as finished:  # a verb's own finding, such as doctor's errors
        return finished.code if isinstance(finished.code, int) else 1
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing more can be told to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        return _fail(name, f"{error.filename or 'writing'}: {error.strerror}")
    except KeyboardInterrupt:
        print(f"robo-rm{name}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def _check_out(settings: object, holds: str) -> None:
    """Refuse an ``out`` that cannot be written to before the work that would be lost.

    Raises:
        ConfigError: see `robo_core.outputs.check_output`.
    """
    out = getattr(settings, "out", None)
    if isinstance(out, str) and out:  # an empty one is the command's own matter
        from robo_core.outputs import check_output

        check_output(out, holds)


def _fail(name: str, message: str) -> int:
    print(f"robo-rm{name}: {message}", file=sys.stderr)
    return 2


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
