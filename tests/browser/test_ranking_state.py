"""The state of an answer in progress (ranking_state.js) against an independent model, for random sequences of actions.

The oracle thinks in positions instead of lists: a tier is a number, a new tier between two others a half, and what is
shown is the order of the numbers. What is saved is judged by annotate.preferences, which the server uses.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import translation
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, Route

from annotate.pages.words import workbench_words
from annotate.preferences import Answer, AnswerRules, Need, Rewrite, criteria_from, validate_answer

STATIC = Path(__file__).resolve().parents[2] / "annotate" / "static"
Action = tuple[str, int, int]
Tiers = list[list[str]]

RUN = """async ({order, actions, rules, words}) => {
  const m = await import("/annotate/ranking_state.js");
  const act = {
    place: (s, id, n) => m.place(s, id, n),
    insert: (s, id, n) => m.insert(s, id, n),
    unrank: (s, id) => m.unrank(s, id),
    half: (s, id, n) => m.halfStep(s, id, n % 2 ? 1 : -1),
    strength: (s, id, n) => m.setStrength(s, n, 1 + order.indexOf(id) % 3),
    rate: (s, id, n) => m.setRating(s, id, n % 2 ? "helpful" : "harmful", n % 2 ? 1 + n % 7 : n % 4 / 2),
    flag: (s, id, n) => m.toggleFlag(s, id, n % 2 ? "rude" : "wrong"),
    bad: (s, id, n) => ({...s, allBad: n % 2 === 1}),
    note: (s, id, n) => ({...s, rationale: "x".repeat(n)}),
    rewrite: (s, id, n) => ({...s, rewrite: n % 3 ? {of: id, text: "y".repeat(n)} : null}),
  };
  const show = (s) => ({tiers: s.tiers, unranked: m.unranked(s), strengths: s.strengths, sentence: m.sentence(s, words),
    spoken: m.spoken(s, words), problem: m.problem(s, rules, words), answer: m.toAnswer(s),
    places: order.map((id) => m.placeOf(s, id, words)),
    reread: m.toAnswer(m.fromDraft(order, JSON.parse(JSON.stringify(m.toDraft(s))), rules))});
  let history = m.begin(m.blank(order, rules));
  const steps = [];
  for (const [name, who, n] of actions) {
    history = m.change(history, act[name](history.now, order[who % order.length], n));
    steps.push(show(history.now));
  }
  const last = JSON.stringify(history.now), depth = history.at;
  for (let i = 0; i < depth; i++) history = m.undo(history);
  const first = show(history.now);
  const spare = m.undo(history).now === history.now;
  for (let i = 0; i < depth; i++) history = m.redo(history);
  return {steps, first, spare, back: JSON.stringify(history.now) === last && m.redo(history).now === history.now};
}"""
CRITERIA = [
    {"key": "helpful", "label": "Helpful", "kind": "likert", "low": 1, "high": 7},
    {"key": "harmful", "label": "Harmful", "kind": "yesno"},
]


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Page]:
    """A blank page of an address that exists only here and serves our scripts from the folder."""
    page = browser.new_page()

    def serve(route: Route) -> None:
        path = route.request.url.removeprefix("http://modules.test/")
        if path:
            route.fulfill(path=STATIC / path, content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html><title>modules</title>", content_type="text/html")

    page.route("http://modules.test/**", serve)
    page.goto("http://modules.test/")
    yield page
    page.close()


actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["place"] * 3 + ["half"] * 2 + ["insert", "unrank", "strength", "rate", "flag", "bad", "note", "rewrite"]
        ),
        st.integers(0, 8),
        st.integers(0, 9),
    ),
    max_size=25,
)
orders = st.integers(2, 9).flatmap(lambda k: st.permutations([str(100 + number) for number in range(k)]))
needs: st.SearchStrategy[Need] = st.sampled_from(["off", "optional", "required"])


def words() -> dict[str, Any]:
    """The texts that the page's script gets, in English."""
    with translation.override("en"):
        found: dict[str, Any] = json.loads(workbench_words())
    return found


def offered(steps: list[Action], rules: AnswerRules) -> list[Action]:
    """The steps without those for which the page of such a project has no control."""
    off = {"strength": rules.strength == "off", "note": rules.rationale == "off", "bad": not rules.allow_all_bad}
    off |= {"rewrite": not rules.allow_rewrite, "rate": not rules.criteria, "flag": not rules.flags}
    return [step for step in steps if not off.get(step[0])]


def run(page: Page, order: list[str], steps: list[Action], *, rules: AnswerRules | None = None) -> dict[str, Any]:
    rules = rules or AnswerRules(criteria=criteria_from(CRITERIA), flags=("rude", "wrong"))
    required = {criterion.key for criterion in rules.criteria if criterion.required}
    content = {
        "ties": rules.allow_ties,
        "partial": rules.allow_partial,
        "all_bad": rules.allow_all_bad,
        "rewrite": rules.allow_rewrite,
        "strength": rules.strength,
        "rationale": rules.rationale,
        "criteria": [one | {"required": one["key"] in required} for one in CRITERIA] if rules.criteria else [],
        "flags": [{"key": key, "label": key} for key in rules.flags],
    }
    found: dict[str, Any] = page.evaluate(
        RUN, {"order": order, "actions": offered(steps, rules), "rules": content, "words": words()}
    )
    return found


# --- the oracle ------------------------------------------------------------------------------------------------------


def expected_tiers(order: list[str], steps: list[Action], *, ties: bool) -> list[Tiers]:
    """The tiers after each step, worked out with positions."""
    places: dict[str, float] = {}
    shown: list[Tiers] = []
    for name, who, number in steps:
        response = order[who % len(order)]
        count = len(set(places.values()))
        if name == "place":
            _place(places, response, min(number, count), ties=ties)
        elif name == "insert":
            places[response] = min(number, count) - 0.5
        elif name == "unrank":
            places.pop(response, None)
        elif name == "half":
            _half(places, response, 1 if number % 2 else -1, ties=ties)
        ranks = {place: rank for rank, place in enumerate(sorted(set(places.values())))}
        places = {one: float(ranks[place]) for one, place in places.items()}
        tiers = [[one for one in order if places.get(one) == rank] for rank in sorted(ranks.values())]
        shown.append(tiers)
    return shown


def _place(places: dict[str, float], response: str, rank: int, *, ties: bool) -> None:
    before = places.get(response)
    if ties or rank not in set(places.values()) - {before}:
        places[response] = rank
    else:
        places[response] = rank + (0.5 if before is not None and before < rank else -0.5)


def _half(places: dict[str, float], response: str, direction: int, *, ties: bool) -> None:
    last = max(places.values(), default=-1)
    if response not in places:
        if direction < 0:
            places[response] = last + 1
        return
    here = places[response]
    if list(places.values()).count(here) > 1:
        places[response] = here + direction / 2
    elif direction > 0 and here == last:
        del places[response]
    elif not (direction < 0 and here == 0):
        places[response] = here + direction * (1 if ties else 1.5)


def read_sentence(text: str, order: list[str]) -> tuple[Tiers, bool]:
    """Tiers and “all bad” from the words on the page, as a person would read them."""
    by_letter = {chr(65 + index): response for index, response in enumerate(order)}
    all_bad = text.startswith("All bad")
    text = text.removeprefix("All bad").removeprefix(", ")
    text = re.sub(r"(, |^)with an edited version of [A-I]$", "", text)
    text = re.sub(r"(, [A-I= ]+ (slightly|clearly|much) better than [A-I= ]+)+$", "", text)
    ranking = re.sub(r", [A-I, ]+ unranked$", "", text)
    tiers = [[by_letter[letter] for letter in tier.split(" = ")] for tier in ranking.split(" > ")] if ranking else []
    return tiers, all_bad


ORDINALS = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"]
STRONGER = [None, "slightly better", "clearly better", "much better"]


def seen_at(tiers: Tiers, response: str) -> str:
    """What the card of a response says."""
    for ordinal, tier in zip(ORDINALS, tiers, strict=False):
        if response in tier:
            return ordinal + (", tied" if len(tier) > 1 else "")
    return "unranked"


def heard(tiers: Tiers, answer: dict[str, Any], order: list[str]) -> str:
    """What a screen reader says of the answer that is saved."""

    def letters(ids: list[str]) -> str:
        return ", ".join(chr(65 + order.index(one)) for one in order if one in ids)

    said = (
        [
            f"{seen_at(tiers, tier[0])}: {letters(tier)}"
            + (f", {STRONGER[strength]} than the next" if strength else "")
            for tier, strength in zip(tiers, [*answer["strengths"], None], strict=True)
        ]
        if tiers
        else []
    )
    if said and answer["unranked"]:
        said.append(f"unranked: {letters(answer['unranked'])}")
    said = ["All bad"] * answer["all_bad"] + said
    return "; ".join(said or ["Nothing placed yet"]) + "."


# --- the tests -------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(order=orders, steps=actions, ties=st.booleans())
def test_every_action_does_what_its_positions_say(
    modules: Page, order: list[str], steps: list[Action], ties: bool
) -> None:
    rules = AnswerRules(allow_ties=ties)
    found = run(modules, order, steps, rules=rules)
    assert [step["tiers"] for step in found["steps"]] == expected_tiers(order, offered(steps, rules), ties=ties)


@settings(max_examples=120, deadline=None)
@given(
    order=orders,
    steps=actions,
    rules=st.builds(
        AnswerRules,
        allow_ties=st.booleans(),
        allow_partial=st.booleans(),
        allow_all_bad=st.booleans(),
        strength=needs,
        rationale=needs,
        allow_rewrite=st.booleans(),
        criteria=st.sampled_from(
            [(), criteria_from(CRITERIA), criteria_from([one | {"required": True} for one in CRITERIA])]
        ),
        flags=st.sampled_from([(), ("rude", "wrong")]),
    ),
)
def test_sentence_draft_and_saved_record_always_agree(
    modules: Page, order: list[str], steps: list[Action], rules: AnswerRules
) -> None:
    for step in run(modules, order, steps, rules=rules)["steps"]:
        answer = step["answer"]
        assert answer == step["reread"]
        tiers, all_bad = read_sentence(step["sentence"], order)
        assert (tiers, all_bad) == (answer["ranking"], answer["all_bad"])
        assert sorted([one for tier in tiers for one in tier] + answer["unranked"]) == sorted(order)
        assert len(answer["strengths"]) == max(len(tiers) - 1, 0)
        assert step["spoken"] == heard(tiers, answer, order)
        assert [STRONGER.index(found) for found in re.findall(r"[a-z]+ better(?= than)", step["sentence"])] == [
            strength for strength in answer["strengths"] if strength
        ]
        assert step["places"] == [seen_at(tiers, response) for response in order]
        rewrite = Rewrite(**answer["rewrite"]) if answer["rewrite"] else None
        faults = validate_answer(Answer(**{**answer, "rewrite": rewrite}), responses=order, rules=rules)
        assert (step["problem"] is None) == (faults == {}), (step["problem"], faults)


@settings(max_examples=60, deadline=None)
@given(order=orders, steps=actions)
def test_undo_leads_back_to_nothing_and_redo_to_the_end(modules: Page, order: list[str], steps: list[Action]) -> None:
    found = run(modules, order, steps)
    assert found["first"]["tiers"] == [] and found["first"]["sentence"] == "" and found["first"]["problem"]
    assert found["spare"] and found["back"]


def test_words_for_eyes_and_ears(modules: Page) -> None:
    steps: list[Action] = [("place", 1, 0), ("place", 0, 1), ("place", 3, 1), ("strength", 1, 0)]
    step = run(modules, ["12", "15", "11", "13"], steps)["steps"][-1]
    assert step["sentence"] == "B > A = D, C unranked, B clearly better than A = D"
    assert step["spoken"] == "1st: B, clearly better than the next; 2nd, tied: A, D; unranked: C."
    assert step["answer"]["ranking"] == [["15"], ["12", "13"]] and step["answer"]["strengths"] == [2]


def test_a_strength_stays_while_its_tiers_stay_neighbours(modules: Page) -> None:
    start: list[Action] = [("place", 0, 0), ("place", 1, 1), ("strength", 1, 0)]
    order = ["1", "2", "3"]
    joined = run(modules, order, [*start, ("place", 2, 1)])["steps"][-1]
    assert (joined["tiers"], joined["strengths"]) == ([["1"], ["2", "3"]], [2])
    between = run(modules, order, [*start, ("insert", 2, 1)])["steps"][-1]
    assert (between["tiers"], between["strengths"]) == ([["1"], ["3"], ["2"]], [None, None])
    swapped = run(modules, order, [*start, ("half", 0, 1), ("half", 0, 1)])["steps"][-1]
    assert (swapped["tiers"], swapped["strengths"]) == ([["2"], ["1"]], [None])


def test_the_same_rating_or_flag_again_takes_it_back(modules: Page) -> None:
    steps: list[Action] = [("rate", 0, 1), ("flag", 0, 1), ("rate", 1, 0), ("rate", 0, 1), ("flag", 0, 1)]
    found = run(modules, ["1", "2"], steps)["steps"]
    assert found[1]["answer"]["ratings"] == {"1": {"helpful": 2}} and found[1]["answer"]["flags"] == {"1": ["rude"]}
    assert found[-1]["answer"]["ratings"] == {"2": {"harmful": 0}} and found[-1]["answer"]["flags"] == {}


def test_typing_is_one_step(modules: Page) -> None:
    texts = modules.evaluate("""async () => {
      const m = await import("/annotate/ranking_state.js");
      let history = m.begin(m.blank(["1", "2"], {ties: true}));
      for (const rationale of ["a", "ab", "abc"]) history = m.change(history, {...history.now, rationale}, "rationale");
      history = m.change(history, m.place(history.now, "1", 0));
      for (const rationale of ["abcd", "abcde"]) history = m.change(history, {...history.now, rationale}, "rationale");
      return [0, 1, 2, 3].map(() => { history = m.undo(history); return history.now.rationale; });
    }""")
    assert texts == ["abc", "abc", "", ""]
