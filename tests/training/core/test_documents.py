"""SFT's documents: which tokens they have, which of them are learned, and how they share rows."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.training.snapshots import write_jsonl
from training.core.conversations import read_demonstrations
from training.core.documents import EncodedDocuments, encode_documents, fill_rows, lay_documents
from training.core.errors import UsageError
from training.core.local_models import byte_tokenizer
from training.core.tokens import ChatEncoder

TOKENIZER = byte_tokenizer()
STOP = TOKENIZER.eos_token_id


def line(prompt: Any, response: Any, split: str = "train", **keys: Any) -> dict[str, Any]:
    return {"type": "demonstration", "prompt": prompt, "response": response, "split": split, **keys}


def encode(
    folder: Path, *lines: dict[str, Any], thinking: bool = False, max_length: int = 1000, tokenizer: Any = None
) -> EncodedDocuments:
    file = read_demonstrations(write_jsonl(folder / "data.jsonl", lines), seed=0, thinking=thinking)
    encoder = ChatEncoder(tokenizer or byte_tokenizer(), show_thinking=thinking)
    return encode_documents(
        file, encoder, splits=("train", "validation"), max_length=max_length, stop_ids=frozenset([STOP])
    )


def learned(encoded: EncodedDocuments, number: int = 0) -> str:
    """The text of the targets of a document."""
    train = encoded.splits["train"]
    return str(TOKENIZER.decode(train.ids(number)[train.contexts[number] :]))


def test_a_document_is_the_template_up_to_the_stop_token_and_its_response_is_learned(tmp_path: Path) -> None:
    encoded = encode(tmp_path, line("2+2?", "4."))
    train = encoded.splits["train"]
    assert TOKENIZER.decode(train.ids(0)) == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4.<|im_end|>"
    assert train.ids(0)[-1] == STOP
    # Neither the stop token of the prompt's turn nor the line break behind the response.
    assert learned(encoded) == "4.<|im_end|>"
    assert (train.targets(0), train.all_targets, train.tokens) == (3, 3, len(train.ids(0)))


def test_thinking_is_learned_where_it_is_shown(tmp_path: Path) -> None:
    thoughtful = line("2+2?", {"id": "r1", "text": "4.", "thinking": "hm"})
    assert learned(encode(tmp_path, thoughtful)) == "4.<|im_end|>"
    assert learned(encode(tmp_path, thoughtful, thinking=True)) == "<think>\nhm\n</think>\n\n4.<|im_end|>"


def test_a_control_token_in_a_text_ends_nothing(tmp_path: Path) -> None:
    encoded = encode(tmp_path, line("<|im_end|>?", "say <|im_end|> now"))
    train = encoded.splits["train"]
    assert learned(encoded) == "say <|im_end|> now<|im_end|>"
    assert train.ids(0)[train.contexts[0] :].count(STOP) == 1
    assert encoded.defused == 2


def test_a_template_without_a_stop_token_is_ended_by_the_end_of_sequence(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"  # noqa: E501
    assert learned(encode(tmp_path, line("2+2?", "4."), tokenizer=tokenizer)) == "4.<|im_end|>"
    tokenizer.eos_token = None
    with pytest.raises(UsageError, match="no end-of-sequence token"):
        encode(tmp_path, line("2+2?", "4."), tokenizer=tokenizer)


def test_what_is_too_long_is_dropped_and_never_cut(tmp_path: Path) -> None:
    lines = [line("a", "x" * 10), line("a", "x" * 11), line("b", "y", "test"), line("c", "z", "validation")]
    whole = len(TOKENIZER("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n")["input_ids"]) + 10
    encoded = encode(tmp_path, *lines, max_length=whole)
    assert learned(encoded) == "x" * 10 + "<|im_end|>"
    assert {split: len(documents) for split, documents in encoded.splits.items()} == {"train": 1, "validation": 1}
    assert encoded.dropped == {"too_long": 1, "test_split": 1}
    assert encoded.sources == {"demonstration": 2}


def test_groups_that_lie_on_both_sides_of_a_split_are_counted(tmp_path: Path) -> None:
    of_one = [line("a", "x"), line("b", "x"), line("c", "x", "validation")]
    encoded = encode(
        tmp_path, *({**each, "split_group": "one"} for each in of_one), line("d", "x", "validation", split_group="two")
    )
    assert encoded.shared_groups == 1
    assert list(encoded.splits["train"].groups) == [0, 0]
    assert list(encoded.splits["validation"].groups) == [0, 1]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_filled_first_fit_decreasing() -> None:
    # 6 and 4, 5 and 5, 3 and 2 of the rest; Johnson's own kind of example, by hand.
    assert fill_rows([4, 5, 2, 6, 3, 5], capacity=10) == [[3, 0], [1, 5], [4, 2]]
    assert fill_rows([12, 3], capacity=10) == [[0], [1]]
    assert fill_rows([], capacity=10) == []


def test_no_row_is_too_long_and_few_are_needed() -> None:
    draw = random.Random(0)
    for _ in range(50):
        lengths = [draw.randint(1, 100) for _ in range(draw.randint(1, 60))]
        rows = fill_rows(lengths, capacity=100)
        assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
        assert all(sum(lengths[place] for place in row) <= 100 for row in rows)
        # The best has at least as many rows as its tokens fill.
        assert len(rows) <= 11 / 9 * max(-(-sum(lengths) // 100), sum(length > 50 for length in lengths)) + 2


def test_documents_that_are_not_packed_stand_alone(tmp_path: Path) -> None:
    documents = encode(tmp_path, line("a", "x"), line("b", "yy"), line("c", "zzz")).splits["train"]
    apart = lay_documents(documents, [2, 0], packed=False, capacity=1000)
    assert apart.members == [(2,), (0,)]
    together = lay_documents(documents, [2, 0], packed=True, capacity=1000)
    assert together.members == [(2, 0)]
    (example,) = together.examples
    assert (example.prompt, example.responses) == ((), (documents.ids(2), documents.ids(0)))
    assert together.skip == {(0, 0): documents.contexts[2], (0, 1): documents.contexts[0]}
