"""Kernels as machine code without a GPU: compiled by a script, in a process that has no interpreter of kernels."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.brute import PATTERNS


@dataclass(frozen=True, slots=True)
class Code:
    """A kernel's text, what it takes of the machine, and its shared memory."""

    text: str
    usage: str
    shared: int

    @property
    def spills(self) -> bool:
        return spills(self.usage)


def answers(script: str, cases: Sequence[object] = (), caches: Path | None = None) -> Any:
    """What a script prints last, as JSON, for cases that it gets as JSON; with caches of its own where a folder is
    given."""
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    if caches:
        env |= {"WEFT_CACHE_DIR": str(caches / "weft"), "TRITON_CACHE_DIR": str(caches / "triton")}
    root = PATTERNS.parent
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(cases)],
        env=env | {"PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def usage(code: bytes) -> str:
    """What NVIDIA's tool says of registers, stack and memory."""
    from triton.backends import nvidia

    dump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(code)
        return subprocess.run([dump, "-res-usage", file.name], capture_output=True, text=True, check=False).stdout


def spilled(usage: str) -> list[int]:
    """Bytes of stack and of local memory."""
    return [int(size) for size in re.findall(r"(?:STACK|LOCAL):(\d+)", usage)]


def spills(usage: str) -> bool:
    """Whether registers did not suffice."""
    return any(spilled(usage))
