"""The error for weft's own faults; a user's mistakes are diagnostics."""


class InternalError(RuntimeError):
    """A fault of weft itself: never caused by a correct use, never the pattern's."""
