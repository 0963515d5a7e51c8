"""Coverage reports as data, and the schema of that data, which is read off the dataclasses."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from . import coverage
from .coverage import SCHEMA, Coverage


@dataclass(frozen=True, slots=True)
class Derived:
    """Percentages, 0 to 100, each list in the order of what it is about; None where the whole is nothing.

    `density` is that of `layer_facts`; `reached` and `possible` are those of `depths`; `last_row` and `worst_row` are
    of what those rows may see; `alone` is that of `head_facts`; costs are of dense attention's.
    """

    density: tuple[float | None, ...]
    reached: tuple[float | None, ...]
    possible: tuple[float | None, ...]
    last_row: tuple[float | None, ...]
    worst_row: tuple[float | None, ...]
    alone: tuple[float | None, ...]
    limit: float | None
    unreachable: float | None
    flops: float | None
    bytes: float | None
    cache_bytes: float | None
    milliseconds: float | None


def as_dict(reports: Sequence[Coverage]) -> dict[str, Any]:
    """The reports as JSON-ready data, all fields and the percentages that follow from them."""
    data = [{**asdict(report), "derived": asdict(derived(report))} for report in reports]
    # Tuples become lists, as the schema says.
    return {"schema": SCHEMA, "reports": json.loads(json.dumps(data))}


def derived(report: Coverage) -> Derived:
    """The percentages of one report."""
    whole, cost = report.admissible, report.cost
    return Derived(
        density=tuple(percentage(f.pairs, whole) for f in report.layer_facts),
        reached=tuple(percentage(d.pairs, whole) for d in report.depths),
        possible=tuple(percentage(d.possible, whole) for d in report.depths),
        last_row=tuple(percentage(d.last.reached, d.last.admissible) for d in report.depths),
        worst_row=tuple(percentage(d.worst.reached, d.worst.admissible) for d in report.depths),
        alone=tuple(percentage(f.pairs, whole) for f in report.head_facts),
        limit=percentage(report.limit, whole),
        unreachable=None if report.undecided or report.limit_depth is None else percentage(whole - report.limit, whole),
        flops=percentage(cost.flops, cost.dense_flops),
        bytes=percentage(cost.bytes, cost.dense_bytes),
        cache_bytes=percentage(cost.cache_bytes, cost.dense_cache_bytes),
        milliseconds=percentage(cost.milliseconds, cost.dense_milliseconds),
    )


def percentage(part: float, whole: float) -> float | None:
    """A part in percent."""
    return 100 * part / whole if whole else None


def _schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type."""
    parts = get_args(kind)
    if kind is type(None):
        return {"type": "null"}
    if kind in SIMPLE:
        return {"type": SIMPLE[kind]}
    if is_dataclass(kind):
        return {"$ref": f"#/$defs/{getattr(kind, '__name__', '')}"}
    if get_origin(kind) is Literal:
        return {"enum": list(parts)}
    if get_origin(kind) is not tuple:
        return {"anyOf": [_schema(part) for part in parts]}
    if parts[-1] is Ellipsis:
        return {"type": "array", "items": _schema(parts[0])}
    return {"type": "array", "prefixItems": [_schema(p) for p in parts], "items": False, "minItems": len(parts)}


def _definition(kind: type[Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass: all of its fields, and no others."""
    hints = get_type_hints(kind)
    properties = {field.name: _schema(hints[field.name]) for field in fields(kind)} | extra
    return {
        "type": "object",
        "description": kind.__doc__,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SIMPLE: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean"}
KINDS = [kind for kind in (*vars(coverage).values(), Derived) if isinstance(kind, type) and is_dataclass(kind)]
JSON_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": f"urn:{SCHEMA.replace('/', ':')}",
    "title": "What stacks of sparse attention layers let tokens see",
    "type": "object",
    "properties": {
        "schema": {"const": SCHEMA},
        "reports": {"type": "array", "items": {"$ref": "#/$defs/Coverage"}},
    },
    "required": ["schema", "reports"],
    "additionalProperties": False,
    "$defs": {
        kind.__name__: _definition(kind, {"derived": _schema(Derived)} if kind is Coverage else {}) for kind in KINDS
    },
}
