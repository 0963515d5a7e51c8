"""Seconds and memory of coverage reports: every shipped pattern and stack at 1M tokens, 64 layers and 32 heads.

`python3 benchmarks/coverage.py [NAME ..]`; each report is made in a process of its own, whose peak memory is shown.
Patterns that need parameters get those listed below; inputs are left open. Stacks have the depth of their files.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
from typing import Any

N = 1 << 20
LAYERS = 64
HEADS = 32
PARAMETERS: dict[str, dict[str, Any]] = {
    "moa": {
        "alpha": [[1024 * (h % 4) for h in range(HEADS)]] * LAYERS,
        "beta_eighths": [[1 + h % 3 for h in range(HEADS)]] * LAYERS,
    },
    "neighborhood_2d": {"height": 1024, "width": 1024},
    "neighborhood_3d": {"frames": 64, "height": 128, "width": 128},
    "prefix_lm": {"prefix": 4096},
    "radial": {"frame": 4096},
    "shared_prefix": {"prefix": 4096},
}


def measure(name: str) -> dict[str, Any]:
    """One report's numbers."""
    import weft
    from weft.compiler.catalogue import stack_names

    if name in stack_names():
        stack = weft.load_stack(name)
        heads = None if name == "moa_layers" else HEADS
        found = stack.coverage(N, heads=heads)
    else:
        found = weft.load(name, **PARAMETERS.get(name, {})).coverage(N, layers=LAYERS, heads=HEADS)
    return {
        "seconds": found.seconds,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "layers": found.layers,
        "complete": found.complete_at,
        "reached": found.depths[-1].pairs / found.admissible,
        "undecided": found.undecided,
    }


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    depth = f"after {found['complete']}" if found["complete"] else f"{100 * found['reached']:.3g} % reached"
    return (
        f"| {name} | {found['seconds']:.2f} | {found['mib']:.0f} | {found['layers']} | {depth} | {found['undecided']} |"
    )


def main() -> None:
    """The table."""
    from weft.compiler.catalogue import names, stack_names

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="patterns and stacks (default: all)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {datetime.date.today()}:\n")
    print("| pattern or stack | seconds | peak MiB | layers | complete | left open |\n|---|---|---|---|---|---|")
    for name in arguments.names or (*names(), *stack_names()):
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, check=True)
        print(row(name, json.loads(done.stdout)), flush=True)


if __name__ == "__main__":
    main()
