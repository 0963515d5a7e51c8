"""Claims about a stack held against what was found."""

from collections.abc import Sequence
from fractions import Fraction
from typing import assert_never

from .coverage import LayerFacts, Status, Verdict
from .ground import Ground
from .quadtree import EMPTY
from .reach import Reach
from .report import plural
from .stack import LoweredClaim


def judge_claim(claim: LoweredClaim, ground: Ground, found: Reach, layers: Sequence[LayerFacts]) -> Verdict:
    """One claim at the length that `found` is about."""
    match claim.kind:
        case "complete":
            return Verdict(claim.text, *_complete(claim, ground, found))
        case "reaches":
            return Verdict(claim.text, *_reaches(claim, ground, found))
        case "density":
            return Verdict(claim.text, *_density(claim, ground, found, layers))
        case _:
            assert_never(claim.kind)


def _depth(claim: LoweredClaim, found: Reach) -> int | None:
    """The depth a claim is about: the one it names, the stack's end, None where the analysis stopped before."""
    last = len(found.depths) - 1
    if claim.within is not None and claim.within <= last:
        return claim.within
    return None if found.stopped else last


def _complete(claim: LoweredClaim, ground: Ground, found: Reach) -> tuple[Status, str]:
    if found.complete_at is not None and (claim.within is None or found.complete_at <= claim.within):
        return "holds", f"complete after {plural(found.complete_at, 'layer')}"
    depth = _depth(claim, found)
    if depth is None:
        return "undecided", f"known up to {plural(len(found.depths) - 1, 'layer')} only"
    missing = ground.forest.minus(found.admissible, found.depths[depth].may)
    if missing == EMPTY:
        return "undecided", "possible, but not certain"
    query, key = ground.forest.first(missing, ground.level)
    return "fails", f"after {plural(depth, 'layer')} query {query:,} does not see key {key:,}"


def _reaches(claim: LoweredClaim, ground: Ground, found: Reach) -> tuple[Status, str]:
    depth = _depth(claim, found)
    known = len(found.depths) - 1 if depth is None else depth
    here, total = found.depths[known], ground.count(found.admissible)
    least, most = (
        Fraction(100 * ground.count(ground.forest.meet(node, found.admissible)), total)
        for node in (here.must, here.may)
    )
    wanted = claim.percent or Fraction(0)
    text = f"{float(least):.4g} %" if least == most else f"{float(least):.4g} to {float(most):.4g} %"
    status: Status = "holds" if least >= wanted else "fails" if most < wanted else "undecided"
    if depth is None:  # more may be reached in the layers that are not known
        status, text = "holds" if status == "holds" else "undecided", f"at least {float(least):.4g} %"
    return status, f"{text} of admissible pairs after {plural(known, 'layer')}"


def _density(claim: LoweredClaim, ground: Ground, found: Reach, layers: Sequence[LayerFacts]) -> tuple[Status, str]:
    total = ground.count(found.admissible) * sum(len(layer.layers) * layer.heads for layer in layers)
    least, most = (
        Fraction(100 * sum(count * len(layer.layers) for count, layer in zip(counts, layers, strict=True)), total)
        for counts in ([layer.head_pairs for layer in layers], [layer.possible_head_pairs for layer in layers])
    )
    wanted = claim.percent or Fraction(0)

    def below(density: Fraction) -> bool:
        return density < wanted or (density == wanted and not claim.strict)

    status: Status = "holds" if below(most) else "undecided" if below(least) else "fails"
    text = f"{float(least):.4g} %" if least == most else f"{float(least):.4g} to {float(most):.4g} %"
    return status, f"{text} of admissible pairs, mean over layers and heads"
