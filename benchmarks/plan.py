"""Planning time of every shipped pattern, on one CPU core, from a checked file to a plan.

python3 benchmarks/plan.py [--n 1048576]

Plans are made with no cache filled but Python's own; the median of five. Tiles are 128 x 128. Patterns that depend on
inputs or draws, or that isl does not decide within its budget, get their tiles when lengths and inputs are known.
"""

import argparse
import statistics
import time
from typing import Any

import weft
from weft.check import natural_heads
from weft.compiler.catalogue import names
from weft.compiler.pipeline import make_plan

PARAMETERS: dict[str, dict[str, Any]] = {
    "moa": {"alpha": [[0, 512, 1024, 64]], "beta_eighths": [[4, 1, 2, 8]]},
    "neighborhood_2d": {"height": 1024, "width": 1024},
    "neighborhood_3d": {"frames": 32, "height": 128, "width": 256},
    "prefix_lm": {"prefix": 2048},
    "radial": {"frame": 4096},
    "shared_prefix": {"prefix": 2048},
}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1 << 20)
    n = parser.parse_args().n
    print("| pattern | plan ms | strategy | loops |\n|---|---|---|---|")
    for name in names():
        pattern = weft.load(name, **PARAMETERS.get(name, {}))
        heads = natural_heads(pattern)
        pattern.bind(heads)
        plan = pattern.plan(n, heads=heads)
        times: list[float] = []
        for _ in range(5):
            make_plan.cache_clear()
            start = time.perf_counter()
            plan = pattern.plan(n, heads=heads)
            times.append(1e3 * (time.perf_counter() - start))
        loops = sum(len(region.runs) for region in plan.regions)
        print(f"| {name} | {statistics.median(times):.1f} | {plan.strategy} | {loops or plan.reason} |", flush=True)


if __name__ == "__main__":
    main()
