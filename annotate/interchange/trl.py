"""What TRL's trainers read: preference pairs for RewardTrainer and DPOTrainer, labelled completions for KTOTrainer,
prompts with completions for SFTTrainer.

`trl` writes texts: the prompt of one user message as it is; a longer conversation as turns `User: …`, `Assistant: …`
with blank lines between, ending in `Assistant: `, since TRL's standard format has no turns of its own. The others write
lists of messages, to which TRL applies the model's chat template.

- `trl`, `trl-conversational`: `{"prompt", "chosen", "rejected"}`, one line for each pair. Unranked responses give none.
- `kto`: `{"prompt", "completion", "label"}`. Of a ranking of two tiers or more the first is desirable and the last is
  not; the tiers between are left out, since nobody said on which side they stand. Where *all are bad*, every response
  is undesirable.
- `sft`: `{"prompt", "completion"}`. A ranking gives its rewrite, else its best response; of several in the best tier
  the one that a hash of the ranking's id draws. *All are bad* gives nothing but a rewrite. Demonstrations come after.

Not carried: who ranked, ratings, flags, rationale, thinking, split, unknown keys.

Source: https://huggingface.co/docs/trl/dataset_formats
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from annotate.interchange.neutral import sha256_of
from annotate.interchange.options import ExportOptions
from annotate.interchange.pairs import Pair, answer, model_name, plain

MESSAGES = [{"role": "text", "content": "text"}]

COLUMNS_OF_TEXTS: Mapping[str, Any] = {"prompt": "text", "chosen": "text", "rejected": "text"}
COLUMNS_OF_MESSAGES: Mapping[str, Any] = {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES}


def text_line(prompt: str, pair: Pair) -> dict[str, Any]:
    """Return a pair as texts."""
    return {"prompt": prompt, "chosen": pair.chosen["text"], "rejected": pair.rejected["text"]}


def message_line(prompt: Sequence[Mapping[str, str]], pair: Pair) -> dict[str, Any]:
    """Return a pair as messages."""
    return {"prompt": prompt, "chosen": [answer(pair.chosen)], "rejected": [answer(pair.rejected)]}


# --- KTO --------------------------------------------------------------------------------------------------------------


def kto_columns(options: ExportOptions) -> dict[str, Any]:
    return {"prompt": MESSAGES, "completion": MESSAGES, "label": "yes"} | ({"model": "text"} if options.models else {})


def write_kto(record: Mapping[str, Any], options: ExportOptions) -> Iterator[dict[str, Any]]:
    """Yield a labelled line for each response that a ranking calls good or bad."""
    labels = _labels(record)
    for response in record["responses"]:
        if (label := labels.get(response["id"])) is not None:
            yield _completion(record, response) | {"label": label} | _model(response, options)


def _labels(record: Mapping[str, Any]) -> dict[str, bool]:
    if record.get("all_bad"):
        return {response["id"]: False for response in record["responses"]}
    tiers = record["ranking"]
    if len(tiers) < 2:
        return {}
    return dict.fromkeys(tiers[0], True) | dict.fromkeys(tiers[-1], False)


# --- SFT --------------------------------------------------------------------------------------------------------------


def sft_columns(options: ExportOptions) -> dict[str, Any]:
    return {"prompt": MESSAGES, "completion": MESSAGES} | ({"model": "text"} if options.models else {})


def write_sft(record: Mapping[str, Any], options: ExportOptions) -> Iterator[dict[str, Any]]:
    """Yield the one response of a ranking that is worth imitating, or the demonstration."""
    response = _worth_imitating(record)
    if response is not None:
        yield _completion(record, response) | _model(response, options)


def _worth_imitating(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if record.get("type") == "demonstration":
        shown: str | Mapping[str, Any] = record["response"]
        return {"text": shown} if isinstance(shown, str) else shown
    if record.get("rewrite"):
        return {"text": record["rewrite"]["text"]}
    if record.get("all_bad") or not record["ranking"]:
        return None
    best = sorted(record["ranking"][0])
    drawn = best[int(sha256_of(f"best of tie {record.get('id')}"), 16) % len(best)]
    found: Mapping[str, Any] = next(response for response in record["responses"] if response["id"] == drawn)
    return found


def _completion(record: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt": plain(record["prompt"]), "completion": [answer(response)]}


def _model(response: Mapping[str, Any], options: ExportOptions) -> dict[str, Any]:
    return {"model": model_name(response)} if options.models else {}
