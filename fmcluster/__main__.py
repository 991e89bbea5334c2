"""The command `fmcluster`, which ends with exit code 130 also where it is interrupted while it loads."""

import sys


def main() -> None:
    """Load the command line, and run it."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
