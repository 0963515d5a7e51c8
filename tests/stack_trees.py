"""Hypothesis strategies over the syntax of stacks and claims: any that can be written, and one that means something."""

from hypothesis import strategies as st

from weft.dsl import syntax as s

Exprs = st.SearchStrategy[s.Expr]


def coverages(expr: Exprs) -> st.SearchStrategy[tuple[s.Coverage, ...]]:
    """No `coverage`, one, or (which the checker refuses) two."""
    maybe = st.none() | expr
    claims = st.one_of(
        st.builds(s.Claim, st.just("complete"), st.none(), st.just(False), maybe, maybe),
        st.builds(s.Claim, st.just("density"), expr, st.booleans(), st.none(), maybe),
        st.builds(s.Claim, st.just("reaches"), expr, st.just(False), maybe, maybe),
    )
    return st.lists(st.builds(s.Coverage, st.lists(claims, max_size=3).map(tuple)), max_size=2).map(tuple)


def stacks(
    names: st.SearchStrategy[str],
    parameters: st.SearchStrategy[tuple[s.Parameter, ...]],
    docs: st.SearchStrategy[str],
    expr: Exprs,
) -> st.SearchStrategy[s.StackDef]:
    """Any stack that can be written, meaningful or not."""
    ranges = st.builds(s.Range, expr, expr)
    sets = st.builds(s.SetLiteral, st.lists(expr, min_size=1, max_size=2).map(tuple))
    selections = st.one_of(ranges, st.builds(s.Every, st.none() | ranges, expr), sets, st.just(s.Else()))
    arguments = st.lists(st.builds(s.Argument, st.none() | names, expr), max_size=2).map(tuple)
    uses = st.builds(s.Call, st.none() | names, names, arguments)
    alone = st.builds(s.HeadLine, st.none(), uses).map(lambda line: (line,))
    several = st.lists(st.builds(s.HeadLine, selections, uses), max_size=3).map(tuple)
    lines = st.lists(st.builds(s.LayerLine, selections, alone | several), max_size=3).map(tuple)
    return st.builds(s.StackDef, names, parameters, docs, expr, lines, coverages(expr))


@st.composite
def pile(draw: st.DrawFn, pattern: str) -> s.StackDef:
    """A well-typed stack over a pattern that needs no arguments."""
    use = s.Call(None, pattern, ())
    step, depth = s.Number(draw(st.integers(1, 3))), s.Number(draw(st.integers(1, 9)))
    split = (s.HeadLine(s.Every(None, step), use), s.HeadLine(s.Else(), use))
    first = s.LayerLine(s.Every(s.Range(s.Number(0), s.Name("depth")), step), draw(st.sampled_from([split, split[:1]])))
    lines = [first, s.LayerLine(s.Else(), (s.HeadLine(None, use),))]
    claim = s.Claim("reaches", s.Decimal("2.5"), False, s.Name("depth"), draw(st.sampled_from([None, s.Number(64)])))
    coverage = draw(st.sampled_from([(), (s.Coverage((claim,)),)]))
    parameters = (s.Parameter("depth", s.Type("int"), depth),)
    return s.StackDef("pile", parameters, "", s.Name("depth"), tuple(draw(st.permutations(lines))), coverage)
