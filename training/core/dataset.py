"""The examples of one split, read from memory-mapped arrays that ``training.core.encoding`` wrote.

Nothing but small numbers of a split is ever in memory whole: token ids lie in a file that the system pages in as steps
ask for them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from training.core.examples import Example, JudgedRanking
from training.core.packing import TokenisedExample

UNRANKED = -1  # the tier of a response that was shown and left unranked

Numbers = NDArray[Any]


class Dataset(Sequence[Example]):
    """The examples of one split; ``tokenised`` has their ids, place by place.

    ``longest`` (E,) are the tokens of each prompt with its longest response. ``annotators`` names the numbers in
    ``JudgedRanking.annotator`` and is the same for all splits of a snapshot.
    """

    def __init__(self, arrays: Mapping[str, Numbers], annotators: Sequence[str]) -> None:
        self._arrays = arrays
        self.annotators = annotators
        self.longest: Numbers = arrays["longest"]
        self.rankings = len(arrays["ranking_weight"])
        self.pairs = int(arrays["ranking_pairs"].sum())
        self.tokenised = Tokenised(arrays)

    def __len__(self) -> int:
        return len(self.longest)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        arrays = self._arrays
        number = range(len(self))[index]
        texts = slice(arrays["example_text"][number] + 1, arrays["example_text"][number + 1])
        rankings = range(arrays["example_ranking"][number], arrays["example_ranking"][number + 1])
        return Example(
            group=int(arrays["example_group"][number]),
            lengths=tuple(arrays["text_characters"][texts].tolist()),
            rankings=tuple(self._ranking(place) for place in rankings),
        )

    def origins(self, number: int) -> list[tuple[int, int]]:
        """Where each response of an example stands first: the line of the file and the place among its responses."""
        texts = slice(self._arrays["example_text"][number] + 1, self._arrays["example_text"][number + 1])
        lines, positions = (self._arrays[f"text_{name}"][texts].tolist() for name in ("line", "position"))
        return list(zip(lines, positions, strict=True))

    @property
    def says_strengths(self) -> bool:
        """Whether any ranking says how much better one tier is than the next."""
        return bool(self._arrays["entry_strength"].any())

    @property
    def known_annotators(self) -> frozenset[int]:
        """Numbers of the annotators of this split."""
        return frozenset(np.unique(self._arrays["ranking_annotator"]).tolist()) - {-1}

    def _ranking(self, number: int) -> JudgedRanking:
        arrays = self._arrays
        entries = slice(arrays["ranking_entry"][number], arrays["ranking_entry"][number + 1])
        places, tiers = arrays["entry_place"][entries].tolist(), arrays["entry_tier"][entries].tolist()
        strengths = arrays["entry_strength"][entries].tolist()
        count = max(tiers) + 1
        return JudgedRanking(
            tiers=tuple(tuple(place for place, at in zip(places, tiers, strict=True) if at == tier)
                        for tier in range(count)),
            unranked=tuple(place for place, at in zip(places, tiers, strict=True) if at == UNRANKED),
            strengths=tuple(strengths[tiers.index(tier)] or None for tier in range(count - 1)),
            weight=float(arrays["ranking_weight"][number]),
            annotator=int(arrays["ranking_annotator"][number]),
            machine=bool(arrays["ranking_machine"][number]),
            task=int(arrays["ranking_task"][number]),
        )  # fmt: skip


class Tokenised(Sequence[TokenisedExample]):
    """The ids of a split's examples, read from the mapped file when asked for."""

    def __init__(self, arrays: Mapping[str, Numbers]) -> None:
        self._texts, self._starts, self._tokens = arrays["example_text"], arrays["text_start"], arrays["tokens"]

    def __len__(self) -> int:
        return len(self._texts) - 1

    @overload
    def __getitem__(self, index: int) -> TokenisedExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenisedExample]: ...
    def __getitem__(self, index: int | slice) -> TokenisedExample | list[TokenisedExample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        prompt, *responses = (
            tuple(self._tokens[self._starts[text] : self._starts[text + 1]].tolist())
            for text in range(self._texts[number], self._texts[number + 1])
        )
        return TokenisedExample(prompt, tuple(responses))
