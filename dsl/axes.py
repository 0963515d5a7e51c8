"""What an axis counts, as its text says it; and which expressions are integers."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Literal

from .syntax import Absolute, Axis, Binary, Call, Coordinate, Expr, Index, Name, Negate, Number

Side = Literal["q", "k", "d", ""]


@dataclass(frozen=True, slots=True)
class Counted:
    """The side whose cells are counted (see `selection.Axis`), in which order, and each division's right side."""

    side: Side
    order: str = ""
    sizes: tuple[Expr | None, ...] = ()


def counted(axis: Axis, orders: Container[str]) -> Counted:
    """What an axis counts; a side of "" where it is no cell of tokens."""
    if axis.side is not None:
        return Counted(axis.side)
    match axis.value:
        case Binary("-", left, right):
            sides = _divided(left), _divided(right)
            if all(sides) and [side[0] for side in sides if side] == ["q", "k"]:
                return Counted("d", "", tuple(side[1] for side in sides if side))
        case value:
            match _divided(value):
                case ("q" | "k" as side, size):
                    return Counted(side, "", (size,))
                case (name, size) if name in orders:
                    return Counted("k", name, (size,))
                case _:
                    pass
    return Counted("")


def _divided(expr: Expr) -> tuple[str, Expr | None] | None:
    """A name, or a name divided."""
    match expr:
        case Name(name):
            return name, None
        case Binary("//", Name(name), size):
            return name, size
        case _:
            return None


def is_integer(expr: Expr, known: Callable[[str], bool]) -> bool:
    """Whether an expression of a score is made of integers alone; `known` says it of names."""
    match expr:
        case Number() | Coordinate():
            return True
        case Name(name) | Index(name):
            return known(name)
        case Negate(operand) | Absolute(operand):
            return is_integer(operand, known)
        case Binary(_, left, right):
            return is_integer(left, known) and is_integer(right, known)
        case Call(None, "abs" | "min" | "max", arguments):
            return all(is_integer(argument.value, known) for argument in arguments)
        case _:
            return False
