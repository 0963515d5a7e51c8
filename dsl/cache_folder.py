"""Where weft keeps files from one run to the next: a folder of the user's that nobody else can change."""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

LAYOUT = "v1"


def cache_folder() -> Path:
    """Where the files go; the Python tag is part of it because it is part of what they were tested with."""
    chosen, xdg = os.environ.get("WEFT_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME", "")
    if chosen:
        root = Path(chosen).absolute()
    elif os.path.isabs(xdg):
        root = Path(xdg, "weft")
    else:
        root = Path.home() / ".cache" / "weft"
    return root / LAYOUT / (sys.implementation.cache_tag or sys.implementation.name)


def make_private(folder: Path) -> None:
    """Make a private folder and its two parents; raise PermissionError if somebody else could change one."""
    chain = (folder.parent.parent, folder.parent, folder)
    chain[0].parent.mkdir(parents=True, exist_ok=True)
    for part in chain:
        with suppress(FileExistsError):
            part.mkdir(mode=0o700)
        status = part.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise PermissionError(f"{part} is not a folder, or is a link to one")
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{part} belongs to somebody else")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"others can write to {part} (chmod go-w would mend it)")
