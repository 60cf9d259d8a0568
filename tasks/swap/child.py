"""The process of a run: a task's own command line, which does not outlive the experiment that started it."""

import ctypes
import importlib
import os
import signal
import sys

# prctl's option that has the kernel send a signal when the parent dies (linux/prctl.h).
PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Has this process saved and ended when its parent is killed, so that no training goes on unseen; does nothing off Linux.

    Args:
        parent: process number of the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it was killed before
            sys.exit("error: the experiment has ended")


def main() -> None:
    """Runs `python -m tasks.swap.child <parent> <task> <command line of the task>`."""
    parent, task, *args = sys.argv[1:]
    end_with(int(parent))
    importlib.import_module(f"tasks.{task}.__main__").main(args)


if __name__ == "__main__":
    main()
