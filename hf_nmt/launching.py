"""The end of every recipe: exit status, one message, and a tidy stop where it is interrupted.

A recipe may be one of several processes that a launcher (`accelerate launch`, torchrun) started. The launcher ends the
others as soon as one of them has failed, so a process that is not the first on its machine waits a moment before it
tells of an error: one that all have is then told by the first alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pydantic

from hf_nmt.config_keys import findings_of
from hf_nmt.errors import ConfigError, NmtError, why_not_written

# Seconds until an error is told, (ours, any other), by the first process of a machine and by the others. Where the
# first meets an error that is not ours, it may be that another process has gone: that one has been telling why.
_FIRST_WAITS, _OTHERS_WAIT = (0.0, 1.0), (4.0, 6.0)


# Attribute of a log record: whether it is too much for the console.
IN_FILE_ONLY = "in_file_only"

# Transformers' Trainer imports peft, and peft bitsandbytes, where they are installed, whether or not anything is to be
# quantized; on a processor it then recommends a package that fetches kernels from the Hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a recipe as Ctrl-C does."""


@contextlib.contextmanager
def interrupts_told() -> Iterator[None]:
    """Leave with a word and status 130 where the user interrupts what is inside, 143 where it is terminated.

    `launch` holds the work of a recipe in it; a recipe whose imports take seconds puts them into it as well.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if _is_first_here():
            sys.stderr.write("Interrupted.\n")
        sys.exit(143 if isinstance(error, _Terminated) else 130)


def launch(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Run a recipe and leave with its exit status: 0 done, 1 a gate failed, 2 the user must change something.

    An `NmtError`, and settings that pydantic refuses, become a message without a stack trace. The log of
    hf_nmt goes to stderr.
    """
    _log_to_stderr()
    _hear_signals()
    with interrupts_told():
        status = _status_of(main)
    if status and _is_one_of_several():  # at once: tidying up takes seconds, in which the others wait for us
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _is_one_of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _is_first_here() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _hear_signals() -> None:
    """Let the recipe clean up on SIGTERM.

    Of several processes each hears the terminal or whoever sent the signal, and then the launcher as well: the second
    must not disturb the tidying up that the first began. The launcher kills what does not end.
    """
    process = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != process:  # a worker process, which inherited this
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if _is_one_of_several():
            for other in (signal.SIGINT, signal.SIGTERM):
                signal.signal(other, signal.SIG_IGN)
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)
    if _is_one_of_several() and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)


def _leave_to_the_launcher(ours: bool) -> None:
    """Wait where there are other processes: where one of them tells the error, the launcher ends this one."""
    if not _is_one_of_several():
        return
    waits = _FIRST_WAITS if _is_first_here() else _OTHERS_WAIT
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(waits[0] if ours else waits[1])


def _status_of(main: Callable[[list[str]], int | None]) -> int:
    try:
        status = main(sys.argv[1:]) or 0
        sys.stdout.flush()
        return status
    except (NmtError, pydantic.ValidationError) as error:
        _leave_to_the_launcher(ours=True)
        if isinstance(error, pydantic.ValidationError):  # settings that were put together outside `config.load`
            error = ConfigError(findings_of(error))
        findings = getattr(error, "findings", [str(error)])
        heading = "Error: " if len(findings) == 1 else f"{len(findings)} settings cannot be used:\n  "
        sys.stderr.write(heading + "\n  ".join(findings) + "\n")
        return error.exit_status
    except BrokenPipeError:
        # Whoever read our output has left (`| head`). Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as a program ended by SIGPIPE
    except Exception as error:
        no_room = why_not_written(error)
        _leave_to_the_launcher(ours=no_room is not None)
        if no_room is None:
            raise
        reason, advice = no_room
        name = getattr(error, "filename", None)
        sys.stderr.write(f"Error: {f'{name} could not be written: ' if name else ''}{reason}. {advice}\n")
        return 2


def _log_to_stderr() -> None:
    """Show the log of hf_nmt on stderr, from the first process of several only: what others warn of, it does too."""
    logger = logging.getLogger("hf_nmt")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.addFilter(lambda record: not getattr(record, IN_FILE_ONLY, False))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
