"""Thinking and answer taken apart: what stands between ``<think>`` and ``</think>``, and what comes after it."""

OPENING, CLOSING = "<think>", "</think>"


def split(text: str, *, opened: bool = False) -> tuple[str | None, str]:
    """The thinking of a sampled text, or None, and its answer.

    Thinking stands at the beginning, white space aside, and ends with the first closing tag; thinking that never ends
    leaves an empty answer. White space around thinking, and before the answer behind it, belongs to the tags. A text
    without thinking is returned as it is, and so are tags further on, which make no thinking: ``split`` is the inverse
    of ``training.core.tokens.shown_text``.

    Args:
        text: what was sampled, control tokens left out.
        opened: whether the prompt's last words open the thinking already (see ``is_opened``).
    """
    start = text.lstrip()
    if start.startswith(OPENING):
        start = start.removeprefix(OPENING)
    elif not opened:
        return None, text
    thinking, closed, answer = start.partition(CLOSING)
    return thinking.strip(), answer.lstrip() if closed else ""


def is_opened(prompt: str) -> bool:
    """Whether a rendered prompt ends inside thinking: some chat templates write the opening tag themselves."""
    return prompt.rstrip().endswith(OPENING)
