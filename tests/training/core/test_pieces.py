"""Pieces of a response while it is sampled: whole characters, and together the decoded text."""

import random

import pytest

from training.core.local_models import byte_tokenizer
from training.core.pieces import Pieces


def pieces_of(tokens: list[int]) -> list[str]:
    tokenizer = byte_tokenizer()

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    pieces = Pieces(decode)
    return [*(pieces.add(token) for token in tokens), pieces.finish(decode(tokens))]


def test_a_character_of_several_tokens_comes_with_its_last_one() -> None:
    tokens = byte_tokenizer()("aé漢🙂").input_ids
    assert pieces_of(tokens) == ["a", "", "é", "", "", "漢", "", "", "", "🙂", ""]


def test_a_character_that_is_never_finished_comes_at_the_end() -> None:
    tokens = byte_tokenizer()("a漢").input_ids[:-1]
    assert pieces_of(tokens) == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_bytes_the_pieces_are_the_text(seed: int) -> None:
    draw = random.Random(seed)
    whole = byte_tokenizer()("ab é漢🙂").input_ids
    tokens = [draw.choice(whole) if draw.random() < 0.7 else draw.randrange(256) for _ in range(60)]
    decoded = byte_tokenizer().decode(tokens, skip_special_tokens=True)
    assert "".join(pieces_of(tokens)) == decoded


def test_a_decoder_that_takes_the_first_space_away_loses_none() -> None:
    """As SentencePiece's do: a token is written otherwise at the beginning than inside."""
    words = [" the", " sun", "set", " is", " red"]
    pieces = Pieces(lambda ids: "".join(words[one] for one in ids).removeprefix(" "))
    assert [pieces.add(number) for number in range(5)] == ["the", " sun", "set", " is", " red"]
