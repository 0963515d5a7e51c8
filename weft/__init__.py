"""weft: declarative sparsity patterns, compiled to fused attention kernels."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout, load the sub-packages by their real paths rather than through the
# links beside this file, so tracebacks and breakpoints name dsl/..., not weft/dsl/....
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.insert(0, str(_checkout))
