"""Drafts are given back as far as they fit; what is left is what the same page could have made."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from annotate.drafting import fitting_body
from annotate.preferences import Answer, AnswerRules, Rewrite, criteria_from, validate_answer

CRITERIA = [
    {"key": "helpful", "label": "Helpful", "kind": "likert", "low": 1, "high": 7},
    {"key": "harmful", "label": "Harmful", "kind": "yesno"},
]
FLAGS = [{"key": "wrong", "label": "Wrong"}, {"key": "rude", "label": "Rude"}]
ORDER = ["11", "12", "13"]


def rules(**changed: Any) -> dict[str, Any]:
    usual = {"ties": True, "partial": True, "all_bad": True, "strength": "optional", "rationale": "optional"}
    return {**usual, "rewrite": True, "criteria": CRITERIA, "flags": FLAGS} | changed


WHOLE = {
    "ranking": [["12"], ["11", "13"]],
    "strengths": [2],
    "all_bad": True,
    "ratings": {"11": {"helpful": 7, "harmful": 0}},
    "flags": {"12": ["rude"]},
    "rationale": "Because.",
    "rewrite": {"of": "12", "text": "Better."},
    "seconds": 12.5,
    "stamp": "1-2",
    "revises": "9",
}


def test_what_fits_comes_back_whole() -> None:
    assert fitting_body(WHOLE, order=ORDER, rules=rules()) == WHOLE


def test_what_the_rules_no_longer_allow_is_left_out() -> None:
    off = rules(ties=False, all_bad=False, strength="off", rationale="off", rewrite=False, criteria=[], flags=[])
    found = fitting_body(WHOLE, order=ORDER, rules=off)
    assert found["ranking"] == [["12"]] and found["strengths"] == []
    assert (found["all_bad"], found["ratings"], found["flags"]) == (False, {}, {})
    assert (found["rationale"], found["rewrite"]) == ("", None)


def test_strangers_repeats_and_values_off_the_scale_are_left_out() -> None:
    odd = {
        "ranking": [["12", "99", "12"], "11", [], ["11", "12"]],
        "strengths": ["x"],
        "all_bad": "yes",
        "ratings": {"11": {"helpful": 8, "harmful": True}, "99": {"helpful": 1}, "12": 3},
        "flags": {"11": ["rude", "unknown"], "12": "rude"},
        "rationale": 3,
        "rewrite": {"of": "99", "text": "x"},
        "seconds": -1,
    }
    found = fitting_body(odd, order=ORDER, rules=rules())
    assert found["ranking"] == [["12"], ["11"]] and found["strengths"] == [None]
    assert (found["all_bad"], found["ratings"], found["flags"]) == (False, {}, {"11": ["rude"]})
    assert (found["rationale"], found["rewrite"], found["seconds"]) == ("", None, 0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from([*ORDER, "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*ORDER, *WHOLE, "of", "text", "helpful"]), inner, max_size=6)
    ),
    max_leaves=30,
)


@given(body=json_values, ties=st.booleans())
def test_whatever_was_kept_the_server_could_take_it(body: Any, ties: bool) -> None:
    found = fitting_body(body, order=ORDER, rules=rules(ties=ties))
    placed = {one for tier in found["ranking"] for one in tier}
    answer = Answer(
        ranking=found["ranking"],
        unranked=[one for one in ORDER if one not in placed],
        strengths=found["strengths"],
        all_bad=found["all_bad"] or len(placed) < 2,
        ratings=found["ratings"],
        flags=found["flags"],
        rationale=found["rationale"],
        rewrite=Rewrite(**found["rewrite"]) if found["rewrite"] else None,
    )
    allowed = AnswerRules(allow_ties=ties, criteria=criteria_from(CRITERIA), flags=("wrong", "rude"))
    assert validate_answer(answer, responses=ORDER, rules=allowed) == {}
