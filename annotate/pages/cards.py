"""A task as the ranking page gets it: ids, rules and draft for its script, and the cards as HTML."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.template.loader import render_to_string

from annotate.drafting import fitting_body
from annotate.pages.rendering import count_words, render_texts

LETTERS = "ABCDEFGHI"
#: Longer responses start folded.
FOLD_FROM_CHARACTERS = 6_000


def tasks_data(contents: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page's script needs of tasks, given as selectors.leases describes them."""
    known = list(contents)
    html = render_texts(text for content in known for text in _texts(content))
    return [_task_data(content, html=html) for content in known]


def _texts(content: dict[str, Any]) -> Iterable[str]:
    yield from (message["content"] for message in content["prompt"])
    for response in content["responses"]:
        yield response["text"]
        yield response["thinking"] or ""


def _task_data(content: dict[str, Any], *, html: Mapping[str, str]) -> dict[str, Any]:
    order = [response["id"] for response in content["responses"]]
    return {
        "lease": content["id"],
        "task": content["task"],
        "version": content["version"],
        "rules": content["rules"],
        "order": order,
        "draft": _draft(content.get("draft"), order=order, rules=content["rules"]),
        "html": render_to_string("annotate/_task.html", task_context(content, html=html)),
    }


def _draft(draft: dict[str, Any] | None, *, order: list[str], rules: dict[str, Any]) -> dict[str, Any] | None:
    return draft and draft | {"body": fitting_body(draft["body"], order=order, rules=rules)}


def task_context(content: dict[str, Any], *, html: Mapping[str, str]) -> dict[str, Any]:
    """What `_task.html` shows: turns, language, responses with their letters, what to say of each, and what is off.

    Args:
        html: each text of the task as safe HTML.
    """
    rules, responses = content["rules"], content["responses"]
    letters = dict(zip((response["id"] for response in responses), LETTERS, strict=False))
    return {
        "turns": [{"role": one["role"], "html": html[one["content"]]} for one in content["prompt"]],
        "language": content["language"],
        "criteria": [_criterion(one) for one in rules["criteria"]],
        "flags": rules["flags"],
        "off": [name for name in ("all_bad", "rationale", "rewrite") if rules[name] in {False, "off"}],
        "responses": [_card(one, letters=letters, others=responses, html=html) for one in responses],
    }


def _card(
    response: dict[str, Any], *, letters: Mapping[str, str], others: list[dict[str, Any]], html: Mapping[str, str]
) -> dict[str, Any]:
    text, thinking = response["text"], response["thinking"]
    following = (others.index(response) + 1) % len(others)
    return {
        **response,
        "letter": letters[response["id"]],
        "following": {"index": following, "letter": LETTERS[following]},
        "html": html[text],
        "words": count_words(text),
        "folded": len(text) > FOLD_FROM_CHARACTERS,
        "thinking_html": html[thinking] if thinking else None,
        "thinking_words": count_words(thinking) if thinking else 0,
        "same_as": [letters[one["id"]] for one in others if one is not response and one["text"] == text],
    }


def _criterion(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A criterion with the values that can be chosen: yes is 1, no 0."""
    yes_or_no = setting.get("kind") == "yesno"
    low, high = (0, 1) if yes_or_no else (int(setting.get("low", 1)), int(setting.get("high", 5)))
    return {
        "key": setting["key"],
        "label": setting["label"],
        "kind": "yesno" if yes_or_no else "likert",
        "low": low,
        "high": high,
        "required": bool(setting.get("required")),
        "values": list(range(low, high + 1)),
    }
