"""The entry point: pick the command, run it, turn a user's mistake into one line and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

from robo_core.cli.commands import find_commands, pick_command
from robo_core.cli.outcome import outcome, reader_gone
from robo_core.cli.typed import typed


def main(arguments: list[str] | None = None) -> int:
    """Run ``robo-rm`` with ``arguments`` (default: the process's own) and return its exit code."""
    # Threads that spin while they wait take the cores from the process that loads their data, and from other work on
    # the machine; read by the OpenMP of torch when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    # A log line that nobody reads any more would show a traceback.
    loud, logging.raiseExceptions = logging.raiseExceptions, False
    name = ["robo-rm"]
    try:
        code = _run(words, name)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not reader_gone():
            raise
        return 128 + signal.SIGPIPE
    except BaseException as error:
        code, line = outcome(error)
        if line is None:
            raise
        return _end(code, f"{' '.join(name)}: {line}" if line else "")
    finally:
        logging.raiseExceptions = loud
        signal.signal(signal.SIGTERM, previous)


HELP_FORMS = ("-h", "--help", "-help", "help")
VERSION_FORMS = ("--version", "-V", "-version", "version")


def help_topic(words: list[str]) -> list[str] | None:
    """What help is asked for, in any of the forms that command lines have; None where none is.

    ``help COMMAND``, ``COMMAND help``, ``COMMAND -h`` and ``COMMAND --help`` are one; nothing typed is a call for help.
    """
    topic = [word for word in words if word not in HELP_FORMS]
    return topic if not words or len(topic) < len(words) else None


def _run(words: list[str], name: list[str]) -> int:
    commands = find_commands()
    topic = help_topic(words)
    if topic is not None:
        from robo_core.cli.help import print_help

        print_help(commands, topic)
        return 0
    if words[0] in VERSION_FORMS:
        from robo_core import __version__

        print(f"robo-rm {__version__}")
        return 0
    if words[0] == "completion":
        from robo_core.cli.completion import install

        return install(words[1:])
    if words[0] in ("-sc", "--shell-completion"):
        from robo_core.cli.completion import complete

        return complete(commands, words)
    command, rest = pick_command(words, commands)
    name.append(command.words)
    from robo_core.cli.app import run_app

    with typed(words):
        return run_app(command, rest)


def _end(code: int, line: str) -> int:
    try:
        sys.stdout.flush()
        if line:
            print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        reader_gone()
        return 128 + signal.SIGPIPE
    return code


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
