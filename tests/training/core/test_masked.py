"""Padded rollouts: padding changes nothing, whatever is in it and on whichever side."""

import pytest
import torch

from training.core.masked import is_last, masked_mean, row_sums, to_rows, whiten

NAN = float("nan")
VALUES = torch.tensor([[1.0, -2.0, 4.0], [0.5, NAN, NAN], [NAN, NAN, NAN]], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
REAL = [1.0, -2.0, 4.0, 0.5]


def test_flat_tokens_become_rows_and_rows_flat_tokens() -> None:
    flat = torch.tensor(REAL, requires_grad=True)
    rows, mask = to_rows(flat, (3, 0, 1))
    assert mask.tolist() == [[True, True, True], [False, False, False], [True, False, False]]
    assert rows.tolist() == [[1.0, -2.0, 4.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]
    assert torch.equal(rows[mask], flat)
    with pytest.raises(ValueError, match="4 tokens are not rows of 5"):
        to_rows(flat, (3, 2))
    assert to_rows(flat[:0], ())[0].shape == (0, 0)


def test_sums_and_means_are_of_real_tokens() -> None:
    assert row_sums(VALUES, MASK).tolist() == [3.0, 0.5, 0.0]
    assert masked_mean(VALUES, MASK).item() == sum(REAL) / 4
    assert masked_mean(VALUES, torch.zeros_like(MASK)).item() == 0


def test_the_entropy_over_a_response_does_not_count_padding() -> None:
    """TRL filled padded log-probabilities with 1 and summed −1 for each into its entropy (#2022, #2281, #2496)."""
    log_probs = torch.tensor([[-0.5, -1.5, 1.0, 1.0], [-2.0, -1.0, -1.0, 1.0]])
    mask = log_probs < 0
    assert row_sums(-log_probs, mask).tolist() == [2.0, 4.0]
    assert masked_mean(-log_probs, mask).item() == pytest.approx(6 / 5)


def test_the_last_real_token_is_found_on_either_side_of_padding() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert is_last(mask).int().tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_whitening_gives_mean_zero_and_population_variance_one() -> None:
    mean = sum(REAL) / 4
    deviation = (sum((x - mean) ** 2 for x in REAL) / 4 + 1e-8) ** 0.5
    expected = [[(x - mean) / deviation for x in REAL[:3]], [(REAL[3] - mean) / deviation, 0.0, 0.0], [0.0] * 3]
    torch.testing.assert_close(whiten(VALUES, MASK), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("left", [False, True])
def test_whitening_does_not_count_padding(left: bool) -> None:
    """trlX took its mean and variance over padding too."""
    padding = torch.full((3, 5), 1e6, dtype=torch.float32)
    parts, masks = [VALUES.float(), padding], [MASK, padding < 0]
    wider = whiten(torch.cat(parts[::-1] if left else parts, 1), torch.cat(masks[::-1] if left else masks, 1))
    # Bit for bit: the real tokens alone are summed, in their order.
    assert torch.equal(wider[:, 5:] if left else wider[:, :3], whiten(VALUES.float(), MASK))
    assert not (wider[:, :5] if left else wider[:, 3:]).any()


def test_whitening_takes_the_mask_of_what_is_real_and_not_of_padding() -> None:
    """verl passed the mask where its complement was meant (#2506): the two must not give the same."""
    whitened = whiten(VALUES, MASK)
    assert whitened[MASK].abs().min() > 0 and not whitened[~MASK].any()


def test_whitening_of_too_little_stays_finite() -> None:
    assert whiten(VALUES, torch.zeros_like(MASK)).tolist() == [[0.0] * 3] * 3
    one = torch.tensor([[True, False, False], [False] * 3, [False] * 3])
    assert whiten(VALUES, one).tolist() == [[0.0] * 3] * 3
