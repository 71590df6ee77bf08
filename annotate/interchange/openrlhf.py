"""What OpenRLHF's reward and DPO trainers read: `{"chosen", "rejected"}`, whole conversations as messages.

These are the trainers' default keys; `--data.apply_chat_template` makes them apply the model's template, and
`--model.margin_loss_enable` has the reward trainer use `margin`, where the export was asked for it.

Not carried: who ranked, ratings, flags, rationale, rewrite, thinking, split, unknown keys.

Source: https://github.com/OpenRLHF/OpenRLHF, openrlhf/datasets/reward_dataset.py
"""

from collections.abc import Mapping, Sequence
from typing import Any

from annotate.interchange.pairs import Pair, answer
from annotate.interchange.trl import MESSAGES

COLUMNS: Mapping[str, Any] = {"chosen": MESSAGES, "rejected": MESSAGES}


def line(prompt: Sequence[Mapping[str, str]], pair: Pair) -> dict[str, Any]:
    """Return the two conversations of a pair."""
    return {key: [*prompt, answer(one)] for key, one in pair.both.items()}
