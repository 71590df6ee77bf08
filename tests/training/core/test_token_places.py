"""Flat places by hand: the predecessor of each token, and what is skipped."""

import pytest
import torch

from training.core.packing import MicroBatch, Row, TokenisedExample, collate
from training.core.token_places import token_places

CPU = torch.device("cpu")
DATA = [TokenisedExample((1, 2), ((10, 11), (20,), (30, 31))), TokenisedExample((3,), ((40, 41, 42),))]
# The second example first, then the first in two rows.
BATCH = MicroBatch((1, 0), (Row(1, (0,), 4), Row(0, (0, 1), 5), Row(0, (2,), 4)))


def test_places_by_hand() -> None:
    places = token_places(DATA, BATCH, device=CPU)
    assert places.row.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert places.column.tolist() == [0, 1, 2, 1, 2, 1, 1, 2]  # 20 is predicted from the prompt's end, too
    assert places.target.tolist() == [40, 41, 42, 10, 11, 20, 30, 31]
    assert places.counts == (3, 2, 1, 2)


def test_responses_stand_in_the_order_of_their_scores() -> None:
    places = token_places(DATA, BATCH, device=CPU)
    rows = collate(DATA, BATCH, packed=True, pad_id=0, device=CPU)
    last = torch.tensor(places.counts).cumsum(0) - 1
    assert places.row[last].tolist() == rows.score_row.tolist()
    assert places.target[last].tolist() == rows.input_ids[rows.score_row, rows.score_column].tolist()


def test_leading_tokens_can_be_skipped() -> None:
    places = token_places(DATA, BATCH, device=CPU, skip={(1, 0): 2, (0, 1): 1, (0, 2): 1})
    assert places.row.tolist() == [0, 1, 1, 2]
    assert places.column.tolist() == [2, 1, 2, 2]
    assert places.target.tolist() == [42, 10, 11, 31]
    assert places.counts == (1, 2, 0, 1)


def test_documents_have_a_first_token_that_nothing_predicts() -> None:
    data = [TokenisedExample((), ((5, 6, 7), (8, 9)))]
    batch = MicroBatch((0,), (Row(0, (0, 1), 5),))
    places = token_places(data, batch, device=CPU, skip={(0, 0): 1, (0, 1): 1})
    assert (places.column.tolist(), places.target.tolist()) == ([0, 1, 3], [6, 7, 9])
    with pytest.raises(ValueError, match="cannot skip 0 of 3"):
        token_places(data, batch, device=CPU)
    with pytest.raises(ValueError, match="cannot skip 3 of 2"):
        token_places(data, batch, device=CPU, skip={(0, 0): 1, (0, 1): 3})
