"""A mask to the quadtree of its pairs: squares with the same residual are grown once."""

from collections.abc import Mapping

from .ir import And, Compare, Formula, Truth, Var
from .quadtree import EMPTY, FULL, Forest, OverBudget
from .residual import TRUE, Residuals
from .tables import Ints

# Residuals one analysis may meet, and those one mask may: past them a mask counts as irregular.
MOST_RESIDUALS = 900_000
MOST_OF_ONE = 200_000
N_TOKENS = (Compare("<", Var("q"), Var("n")), Compare("<", Var("k"), Var("n")))


class Grower:
    """Grows the nodes of formulas on 2^level tokens, of which `n` are there."""

    def __init__(self, forest: Forest, n: int) -> None:
        self.forest = forest
        self.n = n
        self.level = max(0, (n - 1).bit_length())
        self._residuals = Residuals()
        self._memory: dict[tuple[int, int, int, bool], int] = {}

    def grow(
        self,
        formula: Formula,
        values: Mapping[str, int],
        tables: Mapping[str, Ints],
        unknown: bool,
        floor: int = 0,
    ) -> int:
        """The node of a formula over q and k. Raises OverBudget.

        What reads a table that is not there, and squares of 2^floor tokens that are still undecided, count as
        `unknown`.
        """
        known = self._residuals.known({"n": self.n, "m": self.n, **values}, tables)
        root = self._residuals.of(And((*N_TOKENS, formula)), known, 1 << self.level, unknown)
        most = min(MOST_RESIDUALS, len(self._residuals) + (MOST_OF_ONE // 8 if floor else MOST_OF_ONE))
        node = self._square(root, self.level, floor, unknown, most)
        if not (floor and unknown):
            return node
        # Squares across the end of the sequence hold tokens that are not there.
        return self.forest.meet(node, self.grow(Truth(True), {}, {}, False))

    def _square(self, residual: int, level: int, floor: int, unknown: bool, most: int) -> int:
        if residual <= TRUE:
            return FULL if residual == TRUE else EMPTY
        key = (residual, level, floor, unknown and floor > 0)
        found = self._memory.get(key)
        if found is None:
            if len(self._residuals) > most:
                raise OverBudget
            if level == floor:
                found = FULL if unknown else EMPTY
            else:
                moved, size, below = self._residuals.moved, 1 << (level - 1), level - 1
                found = self.forest.node(
                    self._square(moved(residual, False, False, size), below, floor, unknown, most),
                    self._square(moved(residual, False, True, size), below, floor, unknown, most),
                    self._square(moved(residual, True, False, size), below, floor, unknown, most),
                    self._square(moved(residual, True, True, size), below, floor, unknown, most),
                )
            self._memory[key] = found
        return found
