"""What models answered, read back from ``responses.jsonl`` as arrays, and what a sampling run's report says of it."""

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.core.bootstrap import Floats, Ints, with_intervals
from training.core.policy_statistics import distinct_share, number_groups, over_prompts, repetition, win_rate

# Distinct-n compares only sets of about the same size, and takes memory: it is over so many responses of a model.
DISTINCT_OVER = 1_000


@dataclass
class Responses:
    """One model's responses to P prompts, S to each.

    Attributes:
        tokens: P × S, the sampled ids, the stop token left out.
        characters: (P, S) of the answer, thinking left out.
        ended: (P, S), whether it ended by itself.
        scores: (P, S) by key, ``score`` and ``judge``; only what was scored.
        texts: P × S, only where asked for.
    """

    tokens: list[list["array[int]"]]
    characters: Floats
    ended: NDArray[np.bool_]
    scores: dict[str, Floats]
    texts: list[list[str]]

    @property
    def lengths(self) -> Floats:
        """(P, S) tokens."""
        return np.array([[len(one) for one in responses] for responses in self.tokens], np.float64)


def read_responses(
    path: Path, *, each: Sequence[int], prompts: int, keys: Sequence[str], texts: bool = False
) -> list[Responses]:
    """What every model answered.

    Args:
        each: responses to a prompt, by model.
        prompts: P.
        keys: which scores the rows hold.
        texts: keep the answers, too.

    Raises:
        KeyError, IndexError: the file is not of this run.
    """
    found = [
        Responses(
            [[array("i")] * count for _ in range(prompts)],
            np.zeros((prompts, count)),
            np.zeros((prompts, count), bool),
            {key: np.zeros((prompts, count)) for key in keys},
            [[""] * count for _ in range(prompts if texts else 0)],
        )
        for count in each
    ]
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            one, place = found[row["model_index"]], (row["prompt_index"], row["sample"])
            one.tokens[place[0]][place[1]] = array("i", row["token_ids"])
            one.characters[place], one.ended[place] = len(row["text"]), row["ended"]
            for key in keys:
                one.scores[key][place] = row[key]
            if texts:
                one.texts[place[0]][place[1]] = row["text"]
    return found


def sampling_report(
    found: Sequence[Responses], names: Sequence[str], split_groups: Sequence[str], *, seed: int
) -> list[dict[str, Any]]:
    """What each model's responses are like: ``models`` of the report.

    Args:
        split_groups: (P,), what is drawn for the intervals.

    Returns:
        of each model ``name``, ``responses``, ``length_mean`` (tokens), ``ended``, ``repetition`` and, where it was
        scored, ``score``, each with an interval; ``distinct_1`` … ``distinct_3``; and of every model but the first,
        where they were scored, ``win_rate``: how often the reward model prefers its response to the first model's.
    """
    group = number_groups(split_groups)
    written: list[dict[str, Any]] = with_intervals(
        [_of_model(one, name, found[0] if place else None, group)
         for place, (one, name) in enumerate(zip(found, names, strict=True))],
        seed=seed,
    )  # fmt: skip
    return written


def _of_model(one: Responses, name: str, first: Responses | None, group: Ints) -> dict[str, Any]:
    some = [list(response) for response in islice((each for row in one.tokens for each in row), DISTINCT_OVER)]
    repeated = np.array([[repetition(response) for response in responses] for responses in one.tokens])
    values: Mapping[str, Floats] = {
        "length_mean": one.lengths, "ended": one.ended.astype(np.float64), "repetition": repeated, **one.scores,
    }  # fmt: skip
    told: dict[str, Any] = {
        "name": name,
        "responses": int(one.ended.size),
        **{key: over_prompts(table.mean(axis=1), group) for key, table in values.items()},
        **{f"distinct_{n}": distinct_share(some, n) for n in (1, 2, 3)},
    }
    if first is not None and "score" in one.scores:
        told["win_rate"] = win_rate(one.scores["score"], first.scores["score"], group)
    return told


def sampling_warnings(models: Sequence[Mapping[str, Any]], *, often_cut: float) -> list[str]:
    """What a reader has to know, in words: models whose responses are often cut off.

    Args:
        often_cut: the share from which that is worth a word.
    """
    return [
        f"{(1 - model['ended']['value']) * 100:.0f} % of the responses of {model['name']} were cut off by the length "
        "limit."
        for model in models
        if 1 - model["ended"]["value"] >= often_cut
    ]
