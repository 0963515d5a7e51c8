"""weft: declarative sparsity patterns, compiled to fused attention kernels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# In a checkout, load the sub-packages by their real paths rather than through the
# links beside this file, so tracebacks and breakpoints name dsl/..., not weft/dsl/....
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.insert(0, str(_checkout))

if TYPE_CHECKING:
    from .dsl.diagnostics import CompileError, Diagnostic
    from .pattern import Pattern, load, load_file_patterns
    from .stacks import Stack, load_stack
    from .tensors import TensorError

_HOMES = {
    "CompileError": ".dsl.diagnostics",
    "Diagnostic": ".dsl.diagnostics",
    "Pattern": ".pattern",
    "Stack": ".stacks",
    "TensorError": ".tensors",
    "load": ".pattern",
    "load_file_patterns": ".pattern",
    "load_stack": ".stacks",
}

__all__ = ["CompileError", "Diagnostic", "Pattern", "Stack", "TensorError", "load", "load_file_patterns", "load_stack"]


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that the command line starts fast."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
