"""``python -m fsmm`` and the ``fsmm`` command: Ctrl-C ends them quietly, even while their modules are imported."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line; it exits with the command's code, and with 130 where Ctrl-C comes before it can begin."""
    try:
        from .cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process is about to end.
        sys.exit(130)


if __name__ == "__main__":
    main()
