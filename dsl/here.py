"""Which names vary where a part of a score stands, and what each of them counts."""

from dataclasses import dataclass, field, replace
from typing import Literal

from .infer import condition, number
from .scope import POSITIONS, VARIABLES, Cell, Scope, Uses, Value
from .source import Span
from .syntax import Expr

WORDS = {"q": "queries", "k": "keys", "d": "distances", "": "things that are no tokens"}


def words(cell: Cell) -> str:
    """What a cell is made of, in words."""
    return "places" if cell.order else WORDS[cell.side]


def hand(cell: Cell) -> str:
    """The side of a selection that a cell belongs to: of queries, of keys in some way, or of neither."""
    return {"d": "k"}.get(cell.side, cell.side)


@dataclass(slots=True)
class Here:
    """The names that vary where an expression stands; `seen` are those it mentions, `orders` those of its keys.

    `bound` are those that reductions bind, of which `seen` has none.
    """

    scope: Scope
    cells: dict[str, Cell]
    seen: set[str] = field(default_factory=set[str])
    orders: set[str] = field(default_factory=set[str])
    bound: frozenset[str] = frozenset()

    def at(self, name: str, span: Span | None) -> Cell | None:
        """What a name counts here; None once reported."""
        if name in self.cells:
            self.seen.update({name} - self.bound)
            self.scope.used.add(name)
            if self.cells[name].side == "k":
                self.orders.add(self.cells[name].order)
            return self.cells[name]
        if name in self.scope.cells:
            known = ", ".join(f"`{c}`" for c in self.cells) or "none"
            hint = f"what varies here: {known}; a reduction takes more cells together"
            self.scope.report("E006", span, f"`{name}` has no value here", hint)
        elif self.scope.look_up(name, span).kind != "unknown":
            self.scope.report("E006", span, f"`{name}` is not an axis", "such as `axis I = q // 64`")
        return None

    def known(self, name: str) -> bool:
        """Whether a name stands for an integer, or is indexed to give one."""
        kind = self.scope.names[name].kind if name in self.scope.names else ""
        return (
            name in self.cells or name in self.scope.cells or name in VARIABLES or kind in ("number", "table", "input")
        )

    def integers(self, expr: Expr, wanted: Literal["number", "condition"]) -> Uses:
        """The names that an integer, or a condition on integers, mentions; axes count their cells."""
        counted = dict.fromkeys((*self.scope.cells, *self.cells))
        names = {name: Value("number", frozenset((name,))) for name in counted}
        if (order := self.scope.order) in names:
            names[order] = replace(names[order], axes=("token",))
        inner = replace(self.scope, names=self.scope.names | names)
        uses = number(expr, inner) if wanted == "number" else condition(expr, inner)
        mentioned = uses & (counted.keys() | POSITIONS)
        strays = [name for name in sorted(mentioned) if name not in self.cells]
        for name in (*sorted(mentioned - set(strays)), *strays[:1]):
            self.at(name, expr.span)
        return mentioned
