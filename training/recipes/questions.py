"""Which prompts are answered by which models, in which steps, and how many of the steps are done."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.core.conversations import PromptFile, PromptRecord, read_prompts
from training.core.errors import UsageError
from training.core.files import model_fingerprint, shown_name
from training.core.language import load_language_config
from training.core.modeling import load_tokenizer
from training.core.records import SPLITS
from training.core.runfolder import METRICS_NAME
from training.core.tokens import PLAIN_TEMPLATE_NAME, ChatEncoder
from training.recipes.launch import Session, check_same_run
from training.recipes.preparing import compute_repeatably, fingerprints_of, length_taken, words_of
from training.recipes.prompts import Reader, drawn_numbers, fitting_places
from training.recipes.sampling_configs import AnsweringConfig

RESPONSES_NAME = "responses.jsonl"
CHOICE = "prompts"


@dataclass(frozen=True)
class Asked:
    """A model, and how many responses to each prompt are wanted of it."""

    model: str
    each: int

    @property
    def name(self) -> str:
        """As files and reports call it."""
        return shown_name(self.model)


@dataclass
class Questions:
    """The prompts that all models answer, and in which steps.

    ``places`` are those of the prompts in the file, in its order; a prompt's number is its place among these.
    ``readers`` are the models' tokenizers. ``steps`` are (number of the model, numbers of prompts).
    """

    file: PromptFile
    asked: Sequence[Asked]
    fingerprint: str
    others: dict[str, str]
    places: list[int] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    steps: list[tuple[int, list[int]]] = field(default_factory=list)

    def record(self, number: int) -> PromptRecord:
        """A prompt as it stands in the file."""
        return self.file.prompts[self.places[number]]

    def groups(self) -> list[str]:
        """The split group of each prompt."""
        return [self.record(number).split_group for number in range(len(self.places))]

    def counts(self) -> dict[str, Any]:
        """For the report: lines read, prompts answered, and why the rest is not."""
        return {"read": self.file.read, "used": len(self.places), "dropped": dict(sorted(self.dropped.items()))}

    @property
    def defused(self) -> int:
        """Texts that hold control tokens."""
        return max(reader.encoder.defused for reader in self.readers)

    @property
    def without_template(self) -> str | None:
        """The name of our template, where a model brings none."""
        names = {reader.encoder.template_name for reader in self.readers}
        return PLAIN_TEMPLATE_NAME if PLAIN_TEMPLATE_NAME in names else None


def look_at_inputs(session: Session[Any], asked: Sequence[Asked], *, judges: Mapping[str, str | None]) -> Questions:
    """Look at everything that the flags name, and see that a resume finds it as it was.

    Args:
        judges: reward models by their flag.

    Raises:
        UsageError: something cannot be used, or differs from what the run began with.
    """
    file = read_prompts(Path(session.config.data))
    fingerprint = " ".join(model_fingerprint(one.model) for one in asked)
    others = {flag: " ".join(found) for flag, found in fingerprints_of(judges).items()}
    check_same_run(session, data_sha256=file.sha256, model_fingerprint=fingerprint, others=others)
    return Questions(file, asked, fingerprint, others)


def prepare_questions(session: Session[Any], questions: Questions, *, splits: Sequence[str]) -> None:
    """Choose the prompts, which have to be short enough for every model, and lay out the steps.

    Raises:
        UsageError: a model is none, a prompt cannot be encoded, or none is left.
    """
    config: AnsweringConfig = session.config
    compute_repeatably(session.device)
    for one in questions.asked:
        load_language_config(one.model)
    questions.readers = [reader_of(config, one.model) for one in questions.asked]
    found, questions.dropped = fitting_places(questions.file, questions.readers, splits=splits)
    fitting = sorted(place for places in found.values() for place in places)
    if not fitting:
        raise UsageError(
            f"{questions.file.path} has no prompt to answer in {' / '.join(splits)}: {questions.file.read} lines, "
            f"dropped {words_of(questions.dropped)}"
        )
    numbers = drawn_numbers(len(fitting), at_most=config.max_prompts, seed=config.seed, purpose=CHOICE)
    questions.places = [fitting[number] for number in numbers]
    if len(numbers) < len(fitting):
        questions.dropped["beyond_max_prompts"] = len(fitting) - len(numbers)
    chunks = [
        list(range(start, min(start + config.batch_size, len(numbers))))
        for start in range(0, len(numbers), config.batch_size)
    ]
    questions.steps = [(index, chunk) for index in range(len(questions.asked)) for chunk in chunks]


def splits_of(word: str) -> tuple[str, ...]:
    """The splits that --split names."""
    return SPLITS if word == "all" else (word,)


def reader_of(config: AnsweringConfig, model: str) -> Reader:
    """The tokenizer of a model, and the longest prompt that leaves room for a response."""
    encoder = ChatEncoder(load_tokenizer(model), show_thinking=config.thinking == "show")
    room = length_taken(model, at_most=config.max_length) - config.max_response_length
    return Reader(encoder, min(config.prompt_limit, room))


def finished_steps(folder: Path, questions: Questions) -> int:
    """The last step up to which responses and metrics are whole; 0 where there is none."""
    rows = Counter(_steps_in(folder / RESPONSES_NAME))
    measured = set(_steps_in(folder / METRICS_NAME))
    step = 0
    for index, numbers in questions.steps:
        if step + 1 not in measured or rows[step + 1] != len(numbers) * questions.asked[index].each:
            break
        step += 1
    return step


def _steps_in(path: Path) -> Iterator[int]:
    """``step`` of the whole rows of a file, up to the first that is broken."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for raw in file:
            try:
                row = json.loads(raw)
            except ValueError:
                return
            if not raw.endswith(b"\n") or not isinstance(row, dict) or not isinstance(row.get("step"), int):
                return
            yield row["step"]
