"""Hypothesis strategies over the parts of trees that select by content."""

from dataclasses import replace

from hypothesis import strategies as st

from weft.dsl import syntax as s


def binders(names: st.SearchStrategy[str], items: st.SearchStrategy[s.Expr]) -> st.SearchStrategy[tuple[s.Binder, ...]]:
    """What a reduction runs over."""
    binder = st.one_of(
        st.builds(s.Binder, names, items, st.none() | st.sampled_from(("q", "k"))),
        st.builds(s.Binder, names, st.none(), names),
        st.builds(s.Binder, names, st.none(), st.none()),
    )
    return st.lists(binder, min_size=1, max_size=2).map(tuple)


def reductions(names: st.SearchStrategy[str], items: st.SearchStrategy[s.Expr]) -> st.SearchStrategy[s.Reduce]:
    """What takes cells together."""
    words = st.sampled_from(("sum", "mean", "max", "min", "descend"))
    return st.builds(s.Reduce, words, binders(names, items), items, st.none() | items)


def selections(names: st.SearchStrategy[str], items: st.SearchStrategy[s.Expr]) -> st.SearchStrategy[s.Expr]:
    """What only scores and choices are made of."""
    joint = st.builds(replace, rules(items), joint=names)
    return st.one_of(
        st.builds(s.Divide, items, items),
        st.builds(s.Dot, items, items),
        st.builds(s.Slice, items, items, items),
        st.builds(s.Count, st.builds(s.Name, names), rules(items)),
        st.builds(s.Softmax, items, names, st.none() | items),
        st.builds(s.Membership, items, rules(items), st.booleans()),
        st.builds(s.Membership, st.builds(s.Name, names), joint),
        reductions(names, items),
    )


def axes(names: st.SearchStrategy[str], items: st.SearchStrategy[s.Expr]) -> st.SearchStrategy[s.Statement]:
    """Axes and orders of keys."""
    sides = st.none() | st.sampled_from(("q", "k"))
    return st.builds(s.Axis, names, items, sides) | st.builds(s.Order, names, items, items)


def rules(items: st.SearchStrategy[s.Expr]) -> st.SearchStrategy[s.Chosen]:
    """What may stand after `in` to choose cells."""
    word = st.sampled_from(("top", "cover", "reach", "under"))
    part = st.none() | st.sampled_from(("total", "visible", "triangle"))
    maybe = st.none() | items
    return st.one_of(
        st.builds(s.Chosen, word, items, st.just(False), st.none(), items, maybe, maybe),
        st.builds(s.Chosen, word, items, st.just(True), part, items, maybe, maybe),
    )
