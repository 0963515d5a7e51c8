"""Hypothesis strategies over the parts of trees that select by content."""

from hypothesis import strategies as st

from weft.dsl import syntax as s


def binders(names: st.SearchStrategy[str], items: st.SearchStrategy[s.Expr]) -> st.SearchStrategy[tuple[s.Binder, ...]]:
    """What a reduction runs over."""
    binder = st.one_of(
        st.builds(s.Binder, names, items, st.none() | st.sampled_from(("q", "k"))),
        st.builds(s.Binder, names, st.none(), names),
    )
    return st.lists(binder, min_size=1, max_size=2).map(tuple)


def rules(items: st.SearchStrategy[s.Expr]) -> st.SearchStrategy[s.Chosen]:
    """What may stand after `in` to choose cells."""
    word = st.sampled_from(("top", "cover", "reach", "under"))
    part = st.none() | st.sampled_from(("total", "visible", "triangle"))
    maybe = st.none() | items
    return st.one_of(
        st.builds(s.Chosen, word, items, st.just(False), st.none(), items, maybe, maybe),
        st.builds(s.Chosen, word, items, st.just(True), part, items, maybe, maybe),
    )
