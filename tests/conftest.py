"""One environment for all tests: Triton's interpreter where there is no GPU, repeatable Hypothesis, private caches."""

import os
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    # Before anything imports triton: from then on backend="triton" runs on CPU tensors.
    os.environ["TRITON_INTERPRET"] = "1"
    # Tensors are small here: a second thread would only wait, and take a core from another worker.
    torch.set_num_threads(1)

settings.register_profile(
    "weft",
    deadline=None,
    max_examples=int(os.environ.get("WEFT_EXAMPLES", "60")),
    derandomize="CI" in os.environ,
    print_blob=True,
)
settings.load_profile("weft")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` need one."""
    if not HAS_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:  # pyright: ignore[reportUnusedFunction]
    """Generated kernels go to a folder of this run, unless the caller chose one."""
    os.environ.setdefault("WEFT_CACHE_DIR", str(tmp_path_factory.mktemp("weft")))


def _mend_interpreter() -> None:
    """What the interpreter of Triton 3.6 and 3.7 gets wrong under today's numpy."""
    from importlib import import_module

    interpreter: Any = import_module("triton.runtime.interpreter")

    def index(tensor: Any) -> int:
        return int(np.asarray(tensor.handle.data).reshape(-1)[0])

    # 3.6 turns one-element arrays into integers, which numpy 2.4 refuses: range(low, high) fails.
    original = interpreter._patch_lang_tensor

    def patch(tensor: Any, *scope: Any) -> None:
        original(tensor, *scope)
        if scope:
            scope[0].set_attr(tensor, "__index__", index)
        else:
            tensor.__index__ = index

    interpreter._patch_lang_tensor = patch


if not HAS_GPU:
    _mend_interpreter()
