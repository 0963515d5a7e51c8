"""`python -m weft` and the `weft` command."""

import gc
import sys


def main() -> int:
    """The program: what is made while starting lives until the end, so looking for garbage in it is lost time."""
    gc.set_threshold(100_000)
    from .cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
