"""The arithmetic of PPO against TRL 1.12.0, the last release with it: a rollout, its losses, one optimiser step.

What TRL computed lies beside this file (``make_trl_fixtures.py`` says how it came there). In ``full`` no response ends
early, in ``ended`` most do, and ``micro_batches`` is ``ended`` in two parts. Ours is the code of a run: the packed
forward, ``shape_rewards``, ``estimate_advantages``, the losses.

Where the two differ on purpose, ours is changed to do as TRL does, one difference after the other, and then is equal:

1. Whitening: TRL's variance has Bessel's correction.
2. Where a response ended early, TRL puts its score one place behind the end token, on padding. That place thus has a
   value, which the end token bootstraps from and which is trained.
3. TRL averages the means of micro-batches; here every token of the step weighs the same.
4. TRL clips no gradients in PPO.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from training.core.advantages import estimate_advantages, generalised_advantages, token_weights
from training.core.kl import kl_estimate
from training.core.language import LanguageModel, load_language_model
from training.core.log_probs import TokenFigures, backward_through, token_figures
from training.core.masked import to_rows, whiten
from training.core.modeling import RewardModel, load_reward_model
from training.core.packing import MicroBatch, PackedRows, Row, TokenisedExample, collate
from training.core.policy_losses import policy_loss, value_loss
from training.core.shaping import penalise_missing_eos, shape_rewards
from training.core.token_places import TokenPlaces, token_places

HERE = Path(__file__).parent
CPU = torch.device("cpu")
FACTS = json.loads((HERE / "settings.json").read_text())
SETTINGS = FACTS["settings"]
CASES = ["full", "ended", "micro_batches"]
TOLERANCE = 1e-5


@dataclass
class Side:
    """Our models, the rollout as packed rows, and what TRL has of both."""

    policy: LanguageModel
    value: RewardModel
    rows: PackedRows
    places: TokenPlaces
    trl: dict[str, Tensor]
    ended: Tensor
    case: dict[str, Any]

    @property
    def mask(self) -> Tensor:
        """(N, T), true at tokens, end token included."""
        return torch.arange(self.trl["responses"].shape[1]) < torch.tensor(self.places.counts)[:, None]

    @property
    def longer_mask(self) -> Tensor:
        """The mask with one place more in each row that has one."""
        return torch.arange(self.trl["responses"].shape[1]) <= torch.tensor(self.places.counts)[:, None]

    def values(self, mask: Tensor) -> Tensor:
        """V, (N, T), at the places of a mask that goes at most one behind the last token."""
        before = torch.arange(mask.shape[1]).expand(mask.shape)[mask]
        row = torch.arange(len(mask))[:, None].expand(mask.shape)[mask]
        # The state before token t of row n: the prompt's last token for t = 0.
        start = self.rows.score_column - torch.tensor(self.places.counts)
        flat = self.value.score(replace(self.rows, score_row=row, score_column=start[row] + before))
        found = torch.zeros(mask.shape)
        found[mask] = flat
        return found

    def log_probs(self, model: LanguageModel) -> Tensor:
        """ln π(token) at the temperature, (N, T)."""
        figures = token_figures(model, self.rows, self.places, temperature=SETTINGS["temperature"])
        return to_rows(figures.log_probs, self.places.counts)[0]

    def rewards(self, scores: Tensor, mask: Tensor) -> Tensor:
        """As in a run; ``mask`` says where the score goes."""
        reference = load_language_model(str(HERE / "reference"), device=CPU, autocast_dtype=torch.float32)
        k1 = kl_estimate(self.log_probs(self.policy) - self.log_probs(reference), "k1")
        return shape_rewards(scores, k1, mask, kl_coefficient=SETTINGS["kl_coefficient"], kl_in_reward=True)

    @property
    def scores(self) -> Tensor:
        """With the penalty, (N,)."""
        penalty = self.case["missing_eos_penalty"] or 0.0
        return penalise_missing_eos(self.trl["drawn_scores"], self.ended, penalty=penalty)


def side_of(name: str) -> Side:
    trl = load_file(HERE / f"{name}.safetensors")
    examples, ended = [], []
    for query, response in zip(trl["queries"].tolist(), trl["responses"].tolist(), strict=True):
        end = response.index(SETTINGS["eos"]) + 1 if SETTINGS["eos"] in response else len(response)
        prompt = tuple(token for token in query if token != SETTINGS["pad"])
        examples.append(TokenisedExample(prompt, (tuple(response[:end]),)))
        ended.append(SETTINGS["eos"] in response)
    every = tuple(range(len(examples)))
    batch = MicroBatch(every, tuple(Row(number, (0,), examples[number].tokens) for number in every))
    return Side(
        policy=load_language_model(str(HERE / "policy"), device=CPU, autocast_dtype=torch.float32),
        value=load_reward_model(str(HERE / "value"), seed=0, device=CPU, autocast_dtype=torch.float32),
        rows=collate(examples, batch, packed=True, pad_id=SETTINGS["pad"], device=CPU),
        places=token_places(examples, batch, device=CPU),
        trl=trl,
        ended=torch.tensor(ended),
        case=FACTS["cases"][name],
    )


def bessel(mask: Tensor) -> float:
    """What TRL's advantages are multiplied with, against a population's variance."""
    count = int(mask.sum())
    return float(((count - 1) / count) ** 0.5)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


# --- the rollout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_log_probs_and_values_are_trls(name: str) -> None:
    side = side_of(name)
    reference = load_language_model(str(HERE / "reference"), device=CPU, autocast_dtype=torch.float32)
    close(side.log_probs(side.policy)[side.mask], side.trl["logprobs"][side.mask])
    close(side.log_probs(reference)[side.mask], side.trl["ref_logprobs"][side.mask])
    close(side.values(side.longer_mask), side.trl["values"])
    close(side.scores, side.trl["scores"])
    assert side.ended.tolist().count(True) == (5 if side.case["ends"] else 0)


@torch.no_grad()
def test_without_early_ends_rewards_returns_and_advantages_are_trls() -> None:
    side = side_of("full")
    rewards, values = side.rewards(side.scores, side.mask), side.values(side.mask)
    found = estimate_advantages(
        "gae", rewards=rewards, mask=side.mask, groups=torch.zeros(len(rewards)), values=values,
        gamma=SETTINGS["gamma"], gae_lambda=SETTINGS["gae_lambda"],
    )  # fmt: skip
    assert found.returns is not None
    close(rewards, side.trl["rewards"])
    close(found.returns, side.trl["returns"])
    assert (found.advantages - side.trl["advantages"]).abs().max() > 1e-3
    close(found.advantages * bessel(side.mask), side.trl["advantages"])


@torch.no_grad()
def test_with_early_ends_trl_scores_one_place_later_and_bootstraps_from_there() -> None:
    side = side_of("ended")
    ours, theirs = side.rewards(side.scores, side.mask), side.trl["rewards"]
    early = torch.tensor(side.places.counts) < side.mask.shape[1]
    assert early.sum() == 4
    # The same in sum; in TRL's place behind the end token stands the score alone.
    close(ours.sum(1), theirs.sum(1))
    close(ours[~early], theirs[~early])
    close(theirs[side.longer_mask & ~side.mask], side.scores[early])
    close(side.rewards(side.scores, side.longer_mask), theirs)
    advantages, returns = as_trl(side)
    close(advantages, side.trl["advantages"])
    close(returns, side.trl["returns"])
    # And without that: the end token's advantage would be δ of the score itself.
    plain = generalised_advantages(
        ours, side.values(side.mask), side.mask, gamma=SETTINGS["gamma"], gae_lambda=SETTINGS["gae_lambda"]
    )
    assert (whiten(plain, side.mask) * bessel(side.mask) - side.trl["advantages"]).abs().max() > 0.01


@torch.no_grad()
def as_trl(side: Side) -> tuple[Tensor, Tensor]:
    """Advantages and returns, (N, T), with the differences 1 and 2; where no response ended early that is 1 alone."""
    longer, values = side.longer_mask, side.values(side.longer_mask)
    raw = generalised_advantages(
        side.rewards(side.scores, longer), values, longer, gamma=SETTINGS["gamma"], gae_lambda=SETTINGS["gae_lambda"]
    )
    return whiten(raw, side.mask) * bessel(side.mask), torch.where(longer, raw + values, 0)


# --- the update -------------------------------------------------------------------------------------------------------


def mean_weights(mask: Tensor) -> Tensor:
    """Ours: every token of the step the same."""
    return token_weights("gae", mask, max_length=mask.shape[1])


def micro_batch_weights(mask: Tensor, parts: Tensor) -> Tensor:
    """TRL's: the mean of the means of its micro-batches, ``parts`` (micro-batches, rows)."""
    found = torch.zeros(mask.shape)
    for rows in parts:
        found[rows] = mean_weights(mask[rows]) / len(parts)
    return found


@dataclass(frozen=True)
class Rollout:
    """What stays through the inner epochs, flat: of the policy's tokens, and of the value's places."""

    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor


def accumulate(side: Side, rollout: Rollout, weights: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Gradients of one inner epoch; the policy's loss and the value's, (N, T) weights of each being given."""
    mask, longer = side.mask, side.longer_mask
    of_policy, of_value = weights[0][mask], weights[1][longer]

    def loss_of(found: TokenFigures, part: slice) -> Tensor:
        loss = policy_loss(
            found.log_probs, rollout.log_probs[part], rollout.advantages[part], clip=SETTINGS["clip"]
        )  # fmt: skip
        return (loss.per_token * of_policy[part]).sum()

    policy, _ = backward_through(side.policy, side.rows, side.places, loss_of, temperature=SETTINGS["temperature"])
    values = side.values(longer)[longer]
    per_token = value_loss(values, rollout.values, rollout.returns, clip=SETTINGS["value_clip"]).per_token
    value = (per_token * of_value).sum()
    (SETTINGS["value_coefficient"] * value).backward()
    return policy.item(), value.item()


def weights_of(side: Side) -> dict[str, torch.nn.Parameter]:
    models = (("policy", side.policy), ("value", side.value))
    return {f"{part}.{name}": value for part, model in models for name, value in model.trainable()}


@torch.no_grad()
def rollout_of(side: Side) -> Rollout:
    advantages, returns = as_trl(side)
    values = side.values(side.longer_mask)[side.longer_mask]
    log_probs = side.log_probs(side.policy)[side.mask]
    return Rollout(log_probs, advantages[side.mask], values, returns[side.longer_mask])


@pytest.mark.parametrize("name", CASES)
def test_losses_of_both_epochs_and_the_optimiser_step_are_trls(name: str) -> None:
    """Without clipping of gradients, which here would have shortened the step (difference 4)."""
    side = side_of(name)
    rollout, parameters = rollout_of(side), weights_of(side)
    before = {key: value.detach().clone() for key, value in parameters.items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=SETTINGS["learning_rate"])
    for epoch, parts in enumerate(side.trl["order"]):
        weights = [
            micro_batch_weights(mask, parts) if len(parts) > 1 else mean_weights(mask)
            for mask in (side.mask, side.longer_mask)
        ]
        policy, value = accumulate(side, rollout, (weights[0], weights[1]))
        assert policy == pytest.approx(side.trl["pg_loss_stats"][epoch].mean().item(), abs=TOLERANCE)
        assert value == pytest.approx(side.trl["vf_loss_stats"][epoch].mean().item(), rel=TOLERANCE)
        if epoch == 0:
            norm = torch.nn.utils.get_total_norm([each.grad for each in parameters.values() if each.grad is not None])
            assert norm > 1.0
            optimizer.step()
            assert set(parameters) == {key for key in side.trl if key.startswith(("policy.", "value."))}
            for key, parameter in parameters.items():
                close(parameter.detach(), side.trl[key])
                moved, theirs = parameter.detach() - before[key], side.trl[key] - before[key]
                # Of weights near 1, steps of 1e-4 are known to 1e-3 of themselves.
                assert (moved - theirs).norm() < 2e-3 * theirs.norm()
        optimizer.zero_grad()


def test_the_mean_over_all_tokens_is_not_trls_mean_of_micro_batches() -> None:
    side = side_of("micro_batches")
    policy, value = accumulate(side, rollout_of(side), (mean_weights(side.mask), mean_weights(side.longer_mask)))
    assert abs(policy - side.trl["pg_loss_stats"][0].mean().item()) > 1e-3
    # The mean over all tokens is what TRL has where nothing is cut up.
    whole = side_of("ended").trl
    assert policy == pytest.approx(whole["pg_loss_stats"][0].item(), abs=TOLERANCE)
    assert value == pytest.approx(whole["vf_loss_stats"][0].item(), rel=TOLERANCE)
