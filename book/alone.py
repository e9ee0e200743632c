"""Run a command while no other one holds the same lock: ``python alone.py LOCK COMMAND ...``.

A second one says so and waits. The lock belongs to the process that the command becomes, so the
system lets go of it however that process ends, and nothing stale is left behind.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path


def main(lock: str, *command: str) -> None:
    """Wait for the lock, then become the command."""
    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    held = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another make is doing the same in this folder. Waiting for it to end.", flush=True)
        fcntl.flock(held, fcntl.LOCK_EX)
    os.set_inheritable(held, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
