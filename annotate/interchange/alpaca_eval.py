"""AlpacaEval: outputs of models to the same instructions, a file for each model, or pairs that a judge compared.

- Outputs, `{"instruction", "output", "generator"}`: those of one instruction become one task to be ranked, whichever
  of the files they stand in, so all files of an import are one batch. An instruction with one output is left out.
- Annotations, `{"instruction", "output_1", "output_2", "generator_1", "generator_2", "preference", "annotator"}`: a
  pair with a ranking. A preference of 1 or of less than 1.5 is for the first output, 1.5 and 0 are a tie.

The judge is a model, so its rankings are a machine's.

Source: https://github.com/tatsu-lab/alpaca_eval
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from annotate.interchange.joining import Grouping, Item
from annotate.interchange.native import record_from_object
from annotate.interchange.neutral import in_neutral_order, number_from, object_from, sha256_of, short_text, text_from
from annotate.interchange.records import (
    MAX_ANNOTATOR_CHARACTERS,
    MAX_MODEL_CHARACTERS,
    MAX_RECORD_BYTES,
    BadRecord,
    ImportedRecord,
    RecordError,
    SeenKeys,
    parse_json,
)
from annotate.interchange.streams import Read, Source, first_of_its_key, read_texts

FORMAT = "alpaca-eval"
JUDGE = "AlpacaEval"


def read(source: Source | Sequence[Source]) -> Read:
    """Yield one record per instruction of all the files together, or per annotated pair.

    Constant memory: outputs are grouped on disk.

    Raises:
        FileError: a file as a whole cannot be read.
    """
    files = list(source) if isinstance(source, list | tuple) else [source]
    seen = SeenKeys()
    with Grouping() as grouping:
        for found in _items(files):
            if isinstance(found, BadRecord):
                yield found
            else:
                grouping.add(found)
        for group in grouping.groups():
            yield first_of_its_key(_record(group), seen)


def _items(files: Sequence[Any]) -> Iterator[Item | BadRecord]:
    places = count()
    for file in files:
        named = len(files) > 1 and isinstance(file, str | os.PathLike)
        name = f"{os.path.basename(os.fspath(file))}: " if named else ""
        for line, item, text in read_texts(file):
            try:
                if text is None:
                    raise RecordError(f"longer than {MAX_RECORD_BYTES // 1_000_000} MB")
                yield _item(object_from(parse_json(text)), line, next(places))
            except RecordError as error:
                yield BadRecord(line, f"{name}{error}", item)


def _item(value: dict[str, Any], line: int, place: int) -> Item:
    instruction = text_from(value, "instruction")
    if "output_1" in value:
        native = _annotated(instruction, value)
        # Checked here, where the file's own line can be named; every pair is a group of its own.
        record_from_object(native)
        return Item(f"pair {place:012d}", place, line, native)
    output = {"text": text_from(value, "output"), "model": short_text(value.get("generator"), MAX_MODEL_CHARACTERS)}
    return Item(f"task {sha256_of(instruction)}", place, line, {"prompt": instruction, "output": output})


def _annotated(instruction: str, value: Mapping[str, Any]) -> dict[str, Any]:
    models = [short_text(value.get(f"generator_{side}"), MAX_MODEL_CHARACTERS) for side in (1, 2)]
    texts = [text_from(value, f"output_{side}") for side in (1, 2)]
    given = [{"text": text, "model": model} for text, model in zip(texts, models, strict=True)]
    responses, ids = in_neutral_order(given)
    found = {"prompt": instruction, "responses": responses}
    preference = number_from(value.get("preference"), "preference")
    if preference is None:
        return found
    if preference != 0 and not 1 <= preference <= 2:
        raise RecordError(f"the preference {preference:g} is not 0 and not from 1 to 2")
    tied = preference in (0, 1.5)
    better, worse = ids if preference < 1.5 else ids[::-1]
    return found | {
        "ranking": [sorted(ids)] if tied else [[better], [worse]],
        "annotator": short_text(value.get("annotator"), MAX_ANNOTATOR_CHARACTERS) or JUDGE,
        "annotator_kind": "machine",
    }


def _record(group: list[Item]) -> ImportedRecord | BadRecord:
    first = group[0]
    if "responses" in first.value:
        return record_from_object(first.value, line=first.line)
    if len(group) == 1:
        return BadRecord(first.line, "only one output to the instruction", fault=False)
    responses, _ = in_neutral_order([item.value["output"] for item in group])
    try:
        return record_from_object({"prompt": first.value["prompt"], "responses": responses}, line=first.line)
    except RecordError as error:
        return BadRecord(first.line, str(error))
