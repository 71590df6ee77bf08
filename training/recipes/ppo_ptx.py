"""PPO-ptx: beside every minibatch as many good answers, so that the policy keeps what SFT taught it.

Ouyang et al. 2022 (arXiv 2203.02155, eq. 2): the pretraining term, here over whatever documents ``--ptx-data`` holds.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from training.core.conversations import read_demonstrations
from training.core.documents import Documents, encode_documents, lay_documents
from training.core.errors import UsageError
from training.core.log_probs import TokenFigures, backward_through
from training.core.packing import packing_refusal
from training.core.randomness import derive_seed, permutation
from training.core.tokens import ChatEncoder
from training.recipes.configs import PpoConfig
from training.recipes.launch import Session
from training.recipes.ppo_models import Models


@dataclass(frozen=True)
class PtxData:
    """The train documents of ``--ptx-data`` and the weight of their loss."""

    documents: Documents
    coefficient: float
    seed: int
    sha256: str
    packed: bool

    def backward(self, models: Models, count: int, *, key: int, tokens: int) -> float:
        """Gradients of this process's share of coefficient · mean −ln p over the tokens of ``count`` documents.

        Args:
            key: of the minibatch; which documents it gets derives from it and from the seed.
            tokens: forwarded at once; a document longer than that goes alone.

        Returns:
            This process's part of the mean loss, coefficient left out.
        """
        numbers = self.drawn(count, key)
        share = 1.0 / sum(self.documents.targets(number) for number in numbers)
        laid = lay_documents(self.documents, numbers, packed=self.packed, capacity=tokens)
        rows = replace(models.rows, packed=self.packed)
        total = 0.0
        for part in rows.parts(laid.examples, range(len(laid.examples)), tokens=tokens):
            packed, places = rows.forward(laid.examples, part, skip=laid.skip)
            weight = self.coefficient * share * part.counts
            loss, _ = backward_through(models.policy, packed, places, _weighted(weight), entropy=False)
            total += loss.item() / self.coefficient
        return total

    def drawn(self, count: int, key: int) -> list[int]:
        """The documents of a minibatch: ``count`` of a fresh permutation, again from the first where they run out."""
        order = permutation(len(self.documents), derive_seed(self.seed, "ptx"), key)
        return [order[place % len(order)] for place in range(count)]


def _weighted(weight: float) -> Callable[[TokenFigures, slice], Tensor]:
    """weight · Σ −ln p of some tokens."""
    return lambda found, _: -weight * found.log_probs.sum()


def load_ptx(session: Session[PpoConfig], encoder: ChatEncoder, models: Models) -> PtxData | None:
    """The documents of ``--ptx-data``, or None without the flag.

    Raises:
        UsageError: the file cannot be used, or holds nothing to learn from.
    """
    config = session.config
    if config.ptx_data is None:
        return None
    file = read_demonstrations(Path(config.ptx_data), seed=config.seed, thinking=config.thinking == "show")
    encoded = encode_documents(
        file, encoder, splits=("train",), max_length=config.max_length,
        stop_ids=models.stop_ids,
    )  # fmt: skip
    documents = encoded.splits["train"]
    if not len(documents):
        raise UsageError(f"--ptx-data {config.ptx_data} has no answer to learn from in its train split")
    session.say(f"ptx: {len(documents)} answers, {documents.all_targets} tokens to learn")
    refusal = packing_refusal(models.policy.whole.config.get_text_config(), longest=documents.longest)
    return PtxData(documents, config.ptx_coefficient, config.seed, file.sha256, packed=refusal is None)
