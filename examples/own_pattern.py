"""Import a pattern of your own from its file: `python examples/own_pattern.py`."""

import torch

from weft import importer

importer.install()  # from here on, `import` finds .sparse files too
from masks.power import power  # noqa: E402, it is masks/power.sparse

N = 4096


def main() -> None:
    """A pattern is a Python object with parameters; its plan says what will be computed."""
    print(power, "-", power.doc)
    small = power(window=3, block=64)
    print(small.show(N))

    plan = small.plan(N)
    print(f"strategy {plan.strategy}, {len(plan.regions)} regions")
    kept = small.mask(N).mean()
    print(f"{100 * kept:.1f} % of all pairs are kept")

    q, k, v = (torch.randn(1, 4, N, 64) for _ in range(3))
    out, lse = small.attention(q, k, v, return_lse=True)
    print(f"output {tuple(out.shape)}, log-sum-exp {tuple(lse.shape)}")


if __name__ == "__main__":
    main()
