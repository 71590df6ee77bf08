"""Native rankings to the preference pairs that TRL's trainers read: `{"prompt", "chosen", "rejected"}`.

`trl` writes texts: the prompt of one user message as it is; a longer conversation as turns `User: …`, `Assistant: …`
with blank lines between, ending in `Assistant: `, since TRL's standard format has no turns of its own.
`trl-conversational` writes lists of messages, to which TRL applies the model's chat template.

One pair per strict preference. Ties and unranked responses give none. Nothing comes from markers, demonstrations,
prompts, uncounted rankings, gold and repeats: what a reader of plain pairs cannot tell apart must not reach it.

Source: https://huggingface.co/docs/trl/dataset_formats (preference, explicit prompt)
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from annotate.preferences import comparisons_of

LABELS = {"system": "System", "user": "User", "assistant": "Assistant"}


def write(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pairs of one native record as texts."""
    prompt: str | None = None
    for chosen, rejected in strict_pairs(record):
        prompt = prompt if prompt is not None else prompt_text(record["prompt"])
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def write_conversational(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pairs of one native record as messages."""
    for chosen, rejected in strict_pairs(record):
        yield {
            "prompt": [{"role": message["role"], "content": message["content"]} for message in record["prompt"]],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }


def strict_pairs(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (preferred text, other text) for every strict preference of a counted, normal ranking, else nothing."""
    if record.get("type", "ranking") != "ranking" or not record.get("ranking"):
        return
    if record.get("kind", "normal") != "normal" or not record.get("counted", True):
        return
    texts = {response["id"]: response["text"] for response in record["responses"]}
    for pair in comparisons_of(record["ranking"]):
        yield texts[pair.first], texts[pair.second]


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a conversation as one text."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return str(messages[0]["content"])
    turns = [f"{LABELS[message['role']]}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, f"{LABELS['assistant']}: "])
