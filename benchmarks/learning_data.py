"""Public preference data as native records: what `benchmarks.learning` trains on. Standard library only.

The data are read from a folder that is not part of the project (its README names origin and licence of each set). Every
set becomes a list of `Judgement`s; `native` turns one into a line of the format ``plackett/1``.
"""

import csv
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDS = 5
SPELT_TWO_WAYS = {"commond": "common"}

Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Judgement:
    """One person's choice between two responses: ``winner`` 0 or 1 is a place in ``responses``, None a tie.

    ``group`` is what is drawn, whole, into a split and in the bootstrap.
    """

    group: str
    prompt: Messages
    responses: tuple[str, str]
    winner: int | None
    annotator: str = "majority"


def native(judgement: Judgement, *, number: int, split: str) -> dict[str, Any]:
    """One judgement as a ranking of the native format; the response that won stands where the data has it."""
    ids = ("a", "b")
    tie = judgement.winner is None
    order = [list(ids)] if tie else [[ids[judgement.winner]], [ids[1 - judgement.winner]]]
    return {
        "format": "plackett/1",
        "type": "ranking",
        "id": f"judgement-{number}",
        "task": f"task-{number}",
        "annotator": judgement.annotator,
        "split": split,
        "split_group": judgement.group,
        "prompt": [{"role": role, "content": content} for role, content in judgement.prompt],
        "responses": [{"id": name, "text": text} for name, text in zip(ids, judgement.responses, strict=True)],
        "ranking": order,
    }


def write_native(path: Path, parts: Mapping[str, Iterable[Judgement]]) -> None:
    """Write the judgements of each split, one JSON line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 0
    with open(path, "w", encoding="utf-8") as file:
        for split, judgements in parts.items():
            for judgement in judgements:
                file.write(json.dumps(native(judgement, number=number, split=split), ensure_ascii=False) + "\n")
                number += 1


# --- UKPConvArg1 Strict -----------------------------------------------------------------------------------------------


def read_ukp(folder: Path) -> list[Judgement]:
    """The pairs of `ukpconvarg1/strict/*.csv`; a file is one debate and side, a group is a debate (both sides).

    Raises:
        ValueError: a line is not (id, a1 or a2, text, text).
    """
    judgements = []
    for path in sorted(folder.glob("*.csv")):
        group, prompt = ukp_prompt(path.stem)
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                if row[0].startswith("#"):
                    continue
                _, label, first, second = row
                texts = (argument_text(first), argument_text(second))
                judgements.append(Judgement(group, prompt, texts, ("a1", "a2").index(label)))
    return judgements


def ukp_prompt(stem: str) -> tuple[str, Messages]:
    """The debate and what the arguments answer, from a file's name: ``debate_side`` with hyphens for spaces."""
    debate, side = (" ".join(part.replace("-", " ").split()) for part in stem.split("_", 1))
    for wrong, right in SPELT_TWO_WAYS.items():
        side = side.replace(wrong, right)
    text = f"Debate: {debate}\nSide: {side}\nMake a convincing argument for this side."
    return debate, (("user", text),)


def argument_text(raw: str) -> str:
    """An argument with its line breaks, which the files write as a tag."""
    return "\n".join(line.strip() for line in raw.split("<br/>")).strip()


# --- PandaLM ----------------------------------------------------------------------------------------------------------


def read_pandalm(path: Path) -> list[Judgement]:
    """The votes of `pandalm/testset-v1.json`, three a pair, 0 = tie; a group is a prompt.

    Votes between two equal responses are left out: no model of pairs can tell them apart.
    """
    judgements = []
    for item in json.loads(path.read_text(encoding="utf-8")):
        question = "\n\n".join(part for part in (item["instruction"], item["input"]) if part)
        # A few answers are numbers in the file.
        responses = (str(item["response1"]), str(item["response2"]))
        if responses[0] == responses[1]:
            continue
        for person in ("annotator1", "annotator2", "annotator3"):
            winner = {0: None, 1: 0, 2: 1}[item[person]]
            judgements.append(Judgement(question, (("user", question),), responses, winner, person))
    return judgements


# --- Anthropic HH, helpful --------------------------------------------------------------------------------------------


def read_hh(path: Path, *, seed: int = 0) -> list[Judgement]:
    """The pairs of `hh_helpful/*.json` that share their dialogue up to the last answer; a group is that dialogue.

    The chosen text always stands first in the file: here its place is drawn from ``seed``.
    """
    draw = random.Random(seed)
    judgements = []
    for item in json.loads(path.read_text(encoding="utf-8")):
        (before, chosen), (other, rejected) = (text.rsplit("\n\nAssistant:", 1) for text in item["text"])
        winner = draw.randrange(2)
        texts = (chosen.strip(), rejected.strip())
        if before == other and texts[0] != texts[1]:
            judgements.append(Judgement(before, hh_messages(before), texts[:: 1 - 2 * winner], winner))
    return judgements


def hh_messages(dialogue: str) -> Messages:
    """The turns of a dialogue written as ``\\n\\nHuman: …\\n\\nAssistant: …``."""
    messages: list[tuple[str, str]] = []
    for part in ("\n\n" + dialogue.strip()).split("\n\n"):
        speaker, colon, text = part.partition(":")
        if colon and speaker in ("Human", "Assistant"):
            messages.append(({"Human": "user", "Assistant": "assistant"}[speaker], text.strip()))
        elif messages and part.strip():
            role, said = messages[-1]
            messages[-1] = (role, f"{said}\n\n{part}".strip())
    return tuple(messages)


# --- splits -----------------------------------------------------------------------------------------------------------


def make_folds(judgements: Sequence[Judgement], *, folds: int = FOLDS) -> list[set[str]]:
    """The groups in ``folds`` parts of about as many judgements: the largest first, each to the smallest part."""
    parts: list[set[str]] = [set() for _ in range(folds)]
    sizes = [0] * folds
    counted = Counter(judgement.group for judgement in judgements)
    for group, size in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
        smallest = sizes.index(min(sizes))
        parts[smallest].add(group)
        sizes[smallest] += size
    return parts


def draw_groups(judgements: Sequence[Judgement], *, at_least: int, seed: int) -> set[str]:
    """Groups in drawn order until they hold ``at_least`` judgements."""
    counted = Counter(judgement.group for judgement in judgements)
    order = sorted(counted)
    random.Random(seed).shuffle(order)
    drawn: set[str] = set()
    total = 0
    for group in order:
        if total >= at_least:
            break
        drawn.add(group)
        total += counted[group]
    return drawn
