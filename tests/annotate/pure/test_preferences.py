"""Splits, comparisons and the rules of an answer: against numbers worked out elsewhere."""

import unicodedata
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.preferences import (
    Answer,
    AnswerRules,
    Comparison,
    Criterion,
    Rewrite,
    comparisons_of,
    criteria_from,
    normalise_split_text,
    ranking_faults,
    split_for_group,
    validate_answer,
)

IDS = ["a", "b", "c", "d"]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


# --- splits ---

# sha256 mod 100, by Perl's Digest::SHA and Math::BigInt: 65, 13, 83, 88, 94, 99.
PUBLISHED = [
    ("abc", "train"), ("grüße an alle", "train"),
    ("q", "validation"), ("q6", "validation"), ("o", "test"), ("a", "test"),
]  # fmt: skip


@pytest.mark.parametrize(("group", "split"), PUBLISHED)
def test_the_split_follows_the_sha256_of_the_group(group, split):
    assert split_for_group(group) == split


@pytest.mark.parametrize(("bucket", "split"), [(0, "train"), (79, "train"), (80, "validation"), (89, "validation"),
                                               (90, "test"), (99, "test")])  # fmt: skip
def test_the_borders_of_the_splits(bucket, split, monkeypatch):
    class Digest:
        def hexdigest(self):
            return f"{7 * 100 + bucket:x}"

    monkeypatch.setattr("annotate.preferences.hashlib.sha256", lambda _: Digest())
    assert split_for_group("any") == split


def test_splits_come_out_at_about_80_10_10():
    splits = [split_for_group(f"group {number}") for number in range(20_000)]
    # Four standard deviations around the expected counts.
    assert abs(splits.count("train") - 16_000) < 4 * 57
    assert abs(splits.count("validation") - 2_000) < 4 * 43
    assert abs(splits.count("test") - 2_000) < 4 * 43


@pytest.mark.parametrize("text", ["GRÜSSE  an\n\talle ", "Gru\u0308ße an alle", "grüße an\u00a0alle"])
def test_the_same_words_fall_into_one_group(text):
    messages = [{"role": "system", "content": "Be brief."}, user(text), user("something else")]
    assert normalise_split_text(messages) == "grüsse an alle"


def test_a_prompt_without_a_user_message_is_grouped_by_its_first():
    assert normalise_split_text([{"role": "system", "content": "Be Brief."}]) == "be brief."


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_composed_and_decomposed_letters_fall_into_one_group(text):
    groups = {normalise_split_text([user(unicodedata.normalize(form, text))]) for form in ("NFC", "NFD")}
    assert groups == {normalise_split_text([user(text)])}


# --- comparisons ---


def wins(comparisons: list[Comparison]) -> set[tuple[str, str]]:
    return {(pair.first, pair.second) for pair in comparisons if pair.outcome == "win"}


def test_every_strict_preference_gives_one_win():
    found = comparisons_of([["b"], ["a", "d"], ["c"]])
    assert len(found) == 5
    assert wins(found) == {("b", "a"), ("b", "d"), ("b", "c"), ("a", "c"), ("d", "c")}


def test_the_strength_of_a_far_pair_is_the_sum_of_the_known_gaps():
    found = comparisons_of([["a"], ["b"], ["c"], ["d"]], strengths=[2, None, 3])
    strengths = {(pair.first, pair.second): (pair.strength, pair.tiers_apart) for pair in found}
    assert strengths == {
        ("a", "b"): (2, 1), ("a", "c"): (2, 2), ("a", "d"): (5, 3),
        ("b", "c"): (None, 1), ("b", "d"): (3, 2), ("c", "d"): (3, 1),
    }  # fmt: skip


def test_ties_are_dropped_kept_soft_or_given_both_ways():
    assert comparisons_of([["a", "b"]]) == []
    assert comparisons_of([["a", "b"]], ties="soft") == [Comparison("a", "b", "tie", None, 0)]
    assert comparisons_of([["a", "b"]], ties="both") == [
        Comparison("a", "b", "win", None, 0),
        Comparison("b", "a", "win", None, 0),
    ]


def test_unranked_responses_say_nothing_unless_they_count_as_below():
    ranking, unranked = [["a"], ["b"]], ["c", "d"]
    assert wins(comparisons_of(ranking, unranked=unranked)) == {("a", "b")}
    below = comparisons_of(ranking, unranked=unranked, strengths=[2], unranked_policy="below", ties="soft")
    assert wins(below) == {("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")}
    assert not [pair for pair in below if pair.outcome == "tie"]
    assert {(pair.first, pair.second): pair.strength for pair in below}["a", "c"] == 2
    assert {(pair.first, pair.second): pair.strength for pair in below}["b", "c"] is None


def test_nothing_placed_means_no_comparison_even_below():
    assert comparisons_of([], unranked=["a", "b"], unranked_policy="below") == []


weak_orders = st.lists(st.integers(0, 4), min_size=2, max_size=9)


@given(weak_orders)
def test_each_pair_of_placed_responses_is_compared_once(levels):
    names = [f"r{number}" for number in range(len(levels))]
    tiers = [[name for name, own in zip(names, levels, strict=True) if own == level] for level in sorted(set(levels))]
    level_of = dict(zip(names, levels, strict=True))
    found = comparisons_of(tiers, ties="soft")
    assert len({frozenset((pair.first, pair.second)) for pair in found}) == len(found)
    assert len(found) == len(names) * (len(names) - 1) // 2
    for pair in found:
        assert (level_of[pair.first] < level_of[pair.second]) == (pair.outcome == "win")
        assert (level_of[pair.first] == level_of[pair.second]) == (pair.outcome == "tie")


# --- answers ---

OPEN = AnswerRules(criteria=(Criterion("helpful"),), flags=("unsafe",))


@pytest.mark.parametrize("ranking", [[["a"], ["b"], ["c"], ["d"]], [["a", "b"], ["c", "d"]], [["c"], ["d"]]])
def test_a_good_answer_has_no_faults(ranking):
    placed = {name for tier in ranking for name in tier}
    answer = Answer(ranking, [name for name in IDS if name not in placed], [None] * (len(ranking) - 1))
    assert validate_answer(answer, responses=IDS, rules=OPEN) == {}


BAD_ORDERS = [
    (Answer([["a"], ["b"]], ["c"]), "unranked"),  # d is forgotten
    (Answer([["a"], ["b"], ["a"]], ["c", "d"]), "ranking.2"),
    (Answer([["a", "a"], ["b"]], ["c", "d"]), "ranking.0"),
    (Answer([["a"], ["b"]], ["b", "c", "d"]), "unranked"),
    (Answer([["a"], []], ["b", "c", "d"]), "ranking.1"),
    (Answer([["a"], ["x"]], ["b", "c", "d"]), "ranking.1"),
    (Answer([["a"]], ["b", "c", "d"]), "ranking"),
    (Answer([], IDS), "ranking"),
    (Answer([["a"], ["b"]], ["c", "d"], []), "strengths"),
    (Answer([["a"], ["b"]], ["c", "d"], [1, 1]), "strengths"),
    (Answer([["a"], ["b"]], ["c", "d"], [0]), "strengths.0"),
    (Answer([["a"], ["b"]], ["c", "d"], [4]), "strengths.0"),
    (Answer([["a"], ["b"]], ["c", "d"], [True]), "strengths.0"),
]


@pytest.mark.parametrize(("answer", "path"), BAD_ORDERS)
def test_an_order_that_no_project_accepts(answer, path):
    assert path in ranking_faults(answer, responses=IDS)
    assert path in validate_answer(answer, responses=IDS, rules=OPEN)


def test_all_bad_needs_no_placed_response_and_may_keep_an_order():
    nothing = Answer([], IDS, [], all_bad=True)
    ordered = Answer([["a"], ["b", "c", "d"]], [], [1], all_bad=True)
    strict = AnswerRules(allow_partial=False)
    assert validate_answer(nothing, responses=IDS, rules=strict) == {}
    assert validate_answer(ordered, responses=IDS, rules=strict) == {}


GOOD = {"ranking": [["a"], ["b"]], "unranked": ["c", "d"]}
AGAINST_THE_RULES = [
    (Answer([["a", "b"], ["c", "d"]]), AnswerRules(allow_ties=False), ["ranking.0", "ranking.1"]),
    (Answer(**GOOD), AnswerRules(allow_partial=False), ["unranked"]),
    (Answer([["a"]], ["b", "c", "d"], all_bad=True), AnswerRules(allow_partial=False), ["unranked"]),
    (Answer([], IDS, all_bad=True), AnswerRules(allow_all_bad=False), ["all_bad"]),
    (Answer(**GOOD, strengths=[1]), AnswerRules(strength="off"), ["strengths.0"]),
    (Answer(**GOOD, strengths=[None]), AnswerRules(strength="required"), ["strengths.0"]),
    (Answer(**GOOD), AnswerRules(strength="required"), ["strengths.0"]),
    (Answer(**GOOD, ratings={"a": {"helpful": 6}}), OPEN, ["ratings.a.helpful"]),
    (Answer(**GOOD, ratings={"a": {"helpful": True}}), OPEN, ["ratings.a.helpful"]),
    (Answer(**GOOD, ratings={"a": {"polite": 3}}), OPEN, ["ratings.a.polite"]),
    (Answer(**GOOD, ratings={"x": {"helpful": 3}}), OPEN, ["ratings.x"]),
    (
        Answer(**GOOD, ratings={"a": {"kind": 1}, "b": {"kind": 1}, "c": {"kind": 0}}),
        AnswerRules(criteria=criteria_from([{"key": "kind", "kind": "yesno", "required": True}])),
        ["ratings.d.kind"],
    ),
    (Answer(**GOOD, flags={"a": ["rude"]}), OPEN, ["flags.a"]),
    (Answer(**GOOD, flags={"a": ["unsafe", "unsafe"]}), OPEN, ["flags.a"]),
    (Answer(**GOOD, flags={"x": ["unsafe"]}), OPEN, ["flags.x"]),
    (Answer(**GOOD, rationale="because"), AnswerRules(rationale="off"), ["rationale"]),
    (Answer(**GOOD, rationale=" \n"), AnswerRules(rationale="required"), ["rationale"]),
    (Answer(**GOOD, rationale="a\0b"), OPEN, ["rationale"]),
    (Answer(**GOOD, rationale="a\ud800b"), OPEN, ["rationale"]),
    (Answer(**GOOD, rationale="x" * 10_001), OPEN, ["rationale"]),
    (Answer(**GOOD, rewrite=Rewrite("a", "better")), AnswerRules(allow_rewrite=False), ["rewrite"]),
    (Answer(**GOOD, rewrite=Rewrite("x", "better")), OPEN, ["rewrite.of"]),
    (Answer(**GOOD, rewrite=Rewrite("a", "  ")), OPEN, ["rewrite.text"]),
    (Answer(**GOOD, rewrite=Rewrite("a", "a\0")), OPEN, ["rewrite.text"]),
]


@pytest.mark.parametrize(("answer", "rules", "paths"), AGAINST_THE_RULES)
def test_an_answer_against_the_project_rules(answer, rules, paths):
    assert sorted(validate_answer(answer, responses=IDS, rules=rules)) == paths
    # Nothing but the rule stands against it: a project without such rules takes it, unless nobody could.
    assert ranking_faults(answer, responses=IDS) == {}


def test_a_full_answer_under_full_rules():
    scale = Criterion("ok", 0, 1, required=True)
    rules = AnswerRules(strength="required", rationale="required", criteria=(scale,), flags=("x",))
    answer = Answer(
        ranking=[["a"], ["b"], ["c", "d"]],
        strengths=[3, 1],
        ratings={name: {"ok": 1} for name in IDS},
        flags={"d": ["x"]},
        rationale="why",
        rewrite=Rewrite("a", "better"),
    )
    assert validate_answer(answer, responses=IDS, rules=rules) == {}


@given(st.permutations(IDS), st.sets(st.integers(1, 3)), st.integers(2, 4))
def test_any_weak_order_of_the_responses_is_accepted(order, cuts, placed):
    tiers: list[list[str]] = []
    for place, name in enumerate(order[:placed]):
        if place == 0 or place in cuts:
            tiers.append([])
        tiers[-1].append(name)
    assert validate_answer(Answer(tiers, order[placed:]), responses=IDS, rules=AnswerRules()) == {}


def test_the_order_of_the_tiers_names_every_strict_order_once():
    orders = {tuple(sorted(wins(comparisons_of([[name] for name in order])))) for order in permutations(IDS)}
    assert len(orders) == 24
