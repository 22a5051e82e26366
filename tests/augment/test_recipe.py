import numpy as np
import pytest

from ssl_guard.augment import recipe
from ssl_guard.errors import BadInput

KNOWN = ("a", "b", "c", "tfidf")


def rngs(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def marks(name):
    """Returns a rewrite that appends its name."""
    return lambda texts, rngs: [f"{text}>{name}" for text in texts]


REWRITES = {name: marks(name) for name in KNOWN}


def test_plus_binds_tighter_than_the_bar():
    stages = recipe.parse((" a + b|c", "tfidf"), KNOWN)
    assert [stage.alternatives for stage in stages] == [(("a", "b"), ("c",)), (("tfidf",),)]
    assert [stage.text for stage in stages] == ["a+b|c", "tfidf"]
    assert recipe.names(recipe.parse(("a+b|a", "b|c"), KNOWN)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "ops, words",
    [
        ((), "at least one stage"),
        ("tfidf", "must be a tuple"),
        (("a", "b+"), r"stage 2 \('b\+'\): alternative 1 lacks the name"),
        (("a||b",), r"stage 1 \('a\|\|b'\): alternative 2 lacks"),
        (("",), r"stage 1 \(''\): alternative 1 lacks"),
        (("a|c+d",), r"stage 1 .*no augmentation 'd'; choose one of a, b, c, tfidf"),
        (("a", 3), r"stage 2 \(3\): a stage is a string"),
        (("a,b",), "no augmentation 'a,b'"),
    ],
)
def test_a_bad_recipe_names_the_place(ops, words):
    with pytest.raises(BadInput, match=words):
        recipe.parse(ops, KNOWN)


def test_every_text_goes_through_the_chain_that_it_drew():
    (stage,) = recipe.parse(("a+b|c|b",), KNOWN)
    views, chains = recipe.apply(stage, REWRITES, [f"t{i}" for i in range(300)], rngs(300))
    for i, (view, chain) in enumerate(zip(views, chains, strict=True)):
        assert view == f"t{i}>" + chain.replace("+", ">")
    # The draw is the generator's first, and all are drawn about equally often: 100 +- 5 sigma.
    assert [("a+b", "c", "b").index(chain) for chain in chains] == [
        int(rng.integers(3)) for rng in rngs(300)
    ]
    assert all(59 < chains.count(chain) < 141 for chain in ("a+b", "c", "b"))


def test_a_draw_depends_on_the_texts_own_generator():
    (stage,) = recipe.parse(("a|b|c",), KNOWN)
    views, _ = recipe.apply(stage, REWRITES, ["x"] * 20, rngs(20))
    alone = [recipe.apply(stage, REWRITES, ["x"], [rng])[0][0] for rng in rngs(20)]
    assert views == alone


def test_nothing_is_drawn_where_there_is_nothing_to_draw():
    """Otherwise recipes of one operation would change their views."""
    (stage,) = recipe.parse(("a",), {"a"})
    drawn = {"a": lambda texts, rngs: [str(rng.random()) for rng in rngs]}
    views, _ = recipe.apply(stage, drawn, ["x"] * 3, rngs(3))
    assert views == [str(rng.random()) for rng in rngs(3)]


def test_after_none_the_rest_of_a_chain_is_not_asked():
    asked = []

    def refuses_short(texts, rngs):
        return [text if len(text) > 1 else None for text in texts]

    def listens(texts, rngs):
        asked.append(list(texts))
        return list(texts)

    (stage,) = recipe.parse(("a+b",), KNOWN)
    views, _ = recipe.apply(stage, {"a": refuses_short, "b": listens}, ["x", "yy"], rngs(2))
    assert views == [None, "yy"] and asked == [["yy"]]
    recipe.apply(stage, {"a": refuses_short, "b": listens}, ["x"], rngs(1))
    assert asked == [["yy"]], "an operation is not asked for nothing"
