"""Command `fmcluster`: where it starts, with exit code 130 wherever it is interrupted, also while it loads."""

import atexit
import os
import signal
import sys
import time
from contextlib import suppress
from threading import Event, Thread
from typing import NoReturn

from .errors import INTERRUPTED

_CODE = 130
_PATIENCE = 1.5  # seconds of processor time
_LONGEST = 10  # seconds


def main() -> None:
    """Load the command line, and run it."""
    interrupt = _Interrupt()
    with suppress(ValueError):  # of a thread that is not the main one
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it was started to go on without
            signal.signal(signal.SIGINT, interrupt)
            interrupt.wait()
            atexit.register(interrupt.end)  # after all else that is to be done
    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:  # it was loading still, so that nobody has said anything
        interrupt.leave(INTERRUPTED)
    except SystemExit as ended:
        if ended.code == _CODE:
            interrupt.leave()
        if interrupt.came:
            interrupt.leave(INTERRUPTED)
        interrupt.code = ended.code or 0
        raise
    except Exception:
        if interrupt.came:  # what it met has made another error of it
            interrupt.leave(INTERRUPTED)
        raise


class _Interrupt:
    """Handles Ctrl-C: a `KeyboardInterrupt`; where that gets lost, or much is done after it, the process ends.

    It gets lost where it meets what loads a compiled module, or what Python calls while it tidies up. Python itself
    ends by the signal, and not with the exit code, where Ctrl-C came while it ran the text of a class, as that of every
    dataclass, or after all was done; and taking apart all modules would take a second or two.

    Attributes
    ----------
    came : bool
        Whether Ctrl-C was pressed.
    code : object
        The exit code, once all is done.
    """

    def __init__(self) -> None:
        self.came = self._leaves = False
        self.code: object = None
        self._pressed, self._started = Event(), (0.0, 0.0)

    def wait(self) -> None:
        """Let a thread wait for it from now on: to start one then takes a lock that who is interrupted may hold."""
        Thread(target=self._wait, name="fmcluster interrupts", daemon=True).start()

    def __call__(self, *_: object) -> None:
        if self.code is not None:
            self.leave(INTERRUPTED)
        if not self.came:
            self.came = True
            self._started = time.process_time(), time.monotonic()
            self._pressed.set()
        raise KeyboardInterrupt

    def _wait(self) -> NoReturn:
        self._pressed.wait()
        processor, clock = self._started
        while time.process_time() < processor + _PATIENCE and time.monotonic() < clock + _LONGEST:
            time.sleep(0.05)
        if not self._leaves:
            with suppress(OSError):  # past the buffers, whose locks may be held
                os.write(2, f"{INTERRUPTED}\n".encode())
        os._exit(_CODE)

    def leave(self, said: str = "") -> NoReturn:
        """End here, after what is to be done at the end of every process; say so, where nothing has."""
        self._leaves, self.code = True, None
        with suppress(ValueError):  # of a thread that is not the main one
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        atexit._run_exitfuncs()
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            sys.stderr.write(f"{said}\n" if said else "")
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(_CODE)

    def end(self) -> None:
        """End here, without taking apart all modules."""
        if isinstance(self.code, int):
            for stream in filter(None, (sys.stdout, sys.stderr)):
                with suppress(ValueError):  # closed
                    stream.flush()  # where that fails, Python says so
            os._exit(self.code)


if __name__ == "__main__":
    main()
