"""``tokens.jsonl``: responses as they are written, piece by piece, for whoever wants to watch them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.core.pieces import Decode, Pieces
from training.core.runfolder import StepFile
from training.core.sampling import Sample

TOKENS_NAME = "tokens.jsonl"

# Which response a number of the sampler's is: (model_index, prompt, sample).
Place = tuple[int, int, int]


class TokenStream:
    """The file: a line a piece, flushed at every decoding step.

    A line is ``{"step", "model_index", "prompt", "sample", "position", "text"}``; ``position`` is that of the token
    that completed the piece, from 0. The pieces of a response, by position, are its decoded text, thinking and its tags
    included. A position that comes again (memory ran out) says the same again.
    """

    def __init__(self, folder: Path, *, from_step: int) -> None:
        """Open the file behind the steps that are done."""
        self.file = StepFile(folder / TOKENS_NAME, from_step=from_step)
        self._step = 0
        self._decode: Decode = lambda ids: ""
        self._stop_ids: frozenset[int] = frozenset()
        self._places: Mapping[int, Place] = {}
        self._open: dict[int, Pieces] = {}
        self._over: set[int] = set()

    def begin(self, step: int, places: Mapping[int, Place], *, decode: Decode, stop_ids: frozenset[int]) -> None:
        """Say what the numbers of the samples of a step mean."""
        self._step, self._places = step, places
        self._decode, self._stop_ids = decode, stop_ids
        self._open = {number: Pieces(decode) for number in places}
        self._over = set[int]()

    def heard(self, position: int, numbers: Sequence[int], tokens: Sequence[int]) -> None:
        """The token at ``position`` of some samples; at 0 they begin."""
        for number, token in zip(numbers, tokens, strict=True):
            if position == 0:
                self._open[number] = Pieces(self._decode)
                self._over.discard(number)
            if token in self._stop_ids:
                self._over.add(number)
            if number not in self._over:
                self._write(number, self._open[number].add(token))

    def finish(self, samples: Mapping[int, Sample]) -> None:
        """The samples are whole: tell what no token completed."""
        for number, sample in samples.items():
            spoken = sample.tokens[:-1] if sample.ended else sample.tokens
            self._write(number, self._open[number].finish(self._decode(spoken)))
        self.file.sync()

    def _write(self, number: int, piece: str) -> None:
        if piece:
            model, prompt, sample = self._places[number]
            self.file.append(self._step, {
                "model_index": model, "prompt": prompt, "sample": sample, "position": self._open[number].length - 1,
                "text": piece,
            })  # fmt: skip
