"""What a model says to a few held-out prompts before and after SFT: ``samples.jsonl``.

The likeliest token each time, so that the two differ by the model alone.
"""

from dataclasses import asdict, dataclass
from typing import Any

from training.core.documents import Documents
from training.core.errors import StopRequested
from training.core.randomness import derive_seed, permutation
from training.core.runfolder import SAMPLES_NAME, StepFile
from training.core.sampling import GenerateSampler, SamplingSettings
from training.recipes.configs import SftConfig
from training.recipes.launch import Session
from training.recipes.policy_setup import make_budget
from training.recipes.preparing import usable_length
from training.recipes.sft_setup import Prepared

PURPOSE = "samples"


@dataclass(frozen=True)
class SamplePrompt:
    """A held-out prompt, as ids and as messages, and the answer that the file holds for it."""

    ids: tuple[int, ...]
    messages: list[dict[str, str]]
    reference: str


class SampleTable:
    """The prompts, the sampler and the file; all processes sample, the main one writes."""

    def __init__(self, session: Session[SftConfig], prepared: Prepared, *, from_step: int) -> None:
        """Args: ``from_step`` is where the run goes on."""
        config = session.config
        self._session, self._encoder = session, prepared.encoder
        self._prompts = choose_prompts(config, prepared)
        self.file: StepFile | None = None
        if session.world.is_main:
            # Rows are written behind a checkpoint: those of its own step are of an end that was not reached.
            self.file = StepFile(session.folder / SAMPLES_NAME, from_step=from_step - 1)
        settings = SamplingSettings(
            temperature=1.0,
            max_length=config.max_response_length,
            stop_ids=prepared.stop_ids,
            pad_id=prepared.layout.pad_id,
            seed=config.seed,
            greedy=True,
        )
        longest = max((len(prompt.ids) for prompt in self._prompts), default=0) + config.max_response_length
        self._sampler = GenerateSampler(
            prepared.learner.model,
            settings,
            make_budget(session, longest=longest),
            interrupted=lambda: session.stop.requested,
        )

    def write(self, step: int) -> None:
        """Answer the prompts and append the rows of ``step``.

        Raises:
            StopRequested: asked to stop meanwhile.
        """
        world = self._session.world
        mine = world.share(list(range(len(self._prompts))))
        if not self._prompts:
            return
        samples = self._sampler.sample([self._prompts[number].ids for number in mine], mine, purpose=PURPOSE, step=0)
        if samples is None:
            raise StopRequested(f"{self._session.stop.reason or 'stopped with another process'} while sampling")
        found = dict(zip(mine, samples, strict=True))
        together = {number: sample for part in world.gather(found) for number, sample in part.items()}
        for number, prompt in enumerate(self._prompts if self.file is not None else []):
            sample = together[number]
            text = self._encoder.tokenizer.decode(list(sample.tokens), skip_special_tokens=True)
            row = {"prompt": prompt.messages, "response": text, "ended": sample.ended, "reference": prompt.reference}
            assert self.file is not None
            self.file.append(step, row)


def choose_prompts(config: SftConfig, prepared: Prepared) -> list[SamplePrompt]:
    """--sample-prompts validation prompts, drawn by the seed, that leave room for an answer."""
    documents: Documents = prepared.held_out["validation"]
    room = usable_length(config) - config.max_response_length
    found: dict[tuple[int, ...], SamplePrompt] = {}
    for number in permutation(len(documents), derive_seed(config.seed, PURPOSE)):
        if len(found) == config.sample_prompts:
            break
        ids = documents.ids(number)[: documents.contexts[number]]
        if len(ids) <= room and ids not in found:
            line = prepared.file.demonstrations[documents.places[number]]
            messages: list[dict[str, Any]] = [asdict(message) for message in line.prompt]
            found[ids] = SamplePrompt(ids, messages, line.response.text)
    return list(found.values())
