"""The state of an answer in progress (ranking_state.js) against an independent model, for random sequences of actions.

The oracle thinks in positions instead of lists: a tier is a number, a new tier between two others a half, and what is
shown is the order of the numbers. What is saved is judged by annotate.preferences, which the server uses.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, Route

from annotate.preferences import Answer, AnswerRules, Need, validate_answer

STATIC = Path(__file__).resolve().parents[2] / "annotate" / "static"
Action = tuple[str, int, int]
Tiers = list[list[str]]

RUN = """async ({order, actions, ties, rules}) => {
  const m = await import("/annotate/ranking_state.js");
  const act = {
    place: (s, id, n) => m.place(s, id, n, ties),
    insert: (s, id, n) => m.insert(s, id, n),
    unrank: (s, id) => m.unrank(s, id),
    half: (s, id, n) => m.halfStep(s, id, n % 2 ? 1 : -1, ties),
    strength: (s, id, n) => m.setStrength(s, n, 1 + order.indexOf(id) % 3),
    bad: (s, id, n) => m.setAllBad(s, n % 2 === 1),
    note: (s, id, n) => m.setRationale(s, "x".repeat(n)),
  };
  const show = (s) => ({tiers: s.tiers, unranked: m.unranked(s), strengths: s.strengths, sentence: m.sentence(s),
    spoken: m.spoken(s), problem: m.problem(s, rules), answer: m.toAnswer(s, rules),
    reread: m.toAnswer(m.fromDraft(order, JSON.parse(JSON.stringify(m.toDraft(s)))), rules)});
  let history = m.begin(m.blank(order));
  const steps = [];
  for (const [name, who, n] of actions) {
    history = m.change(history, act[name](history.now, order[who % order.length], n));
    steps.push(show(history.now));
  }
  const last = JSON.stringify(history.now), depth = history.past.length;
  for (let i = 0; i < depth; i++) history = m.undo(history);
  const first = show(history.now);
  const spare = JSON.stringify(m.undo(history).now) === JSON.stringify(history.now);
  for (let i = 0; i < depth; i++) history = m.redo(history);
  return {steps, first, spare, back: JSON.stringify(history.now) === last};
}"""


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
        st.sampled_from(["place", "place", "place", "insert", "unrank", "half", "half", "strength", "bad", "note"]),
        st.integers(0, 8),
        st.integers(0, 9),
    ),
    max_size=25,
)
orders = st.integers(2, 9).flatmap(lambda k: st.permutations([str(100 + number) for number in range(k)]))
needs: st.SearchStrategy[Need] = st.sampled_from(["off", "optional", "required"])


def run(page: Page, order: list[str], steps: list[Action], *, rules: AnswerRules | None = None) -> dict[str, Any]:
    rules = rules or AnswerRules()
    found: dict[str, Any] = page.evaluate(
        RUN,
        {
            "order": order,
            "actions": steps,
            "ties": rules.allow_ties,
            "rules": {
                "ties": rules.allow_ties,
                "partial": rules.allow_partial,
                "all_bad": rules.allow_all_bad,
                "strength": rules.strength,
                "rationale": rules.rationale,
            },
        },
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
    ranking = re.sub(r", [A-I, ]+ unranked$", "", text)
    tiers = [[by_letter[letter] for letter in tier.split(" = ")] for tier in ranking.split(" > ")] if ranking else []
    return tiers, all_bad


# --- the tests -------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(order=orders, steps=actions, ties=st.booleans())
def test_every_action_does_what_its_positions_say(
    modules: Page, order: list[str], steps: list[Action], ties: bool
) -> None:
    found = run(modules, order, steps, rules=AnswerRules(allow_ties=ties))
    assert [step["tiers"] for step in found["steps"]] == expected_tiers(order, steps, ties=ties)


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
        faults = validate_answer(Answer(**{**answer, "rewrite": None}), responses=order, rules=rules)
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
    assert step["sentence"] == "B > A = D, C unranked"
    assert step["spoken"] == "B 1st, clearly better than the next; A and D tied 2nd; C unranked."
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


def test_a_foreign_draft_is_read_as_far_as_it_fits(modules: Page) -> None:
    reread = """async (draft) => {
      const m = await import("/annotate/ranking_state.js");
      return m.toAnswer(m.fromDraft(["1", "2"], draft), {strength: "optional", rationale: "optional"});
    }"""
    odd = {"ranking": [["2", "9", "2"], "1", [], ["1", "2"]], "strengths": ["x"], "all_bad": "yes", "rationale": 3}
    answer = modules.evaluate(reread, odd)
    assert answer["ranking"] == [["2"], ["1"]] and answer["strengths"] == [None]
    assert answer["all_bad"] is False and answer["rationale"] is None
    for nothing in (None, 7, [], {}, {"ranking": None}):
        assert modules.evaluate(reread, nothing)["ranking"] == []
