"""The prompts of `benchmarks.policies`: sums that can be checked, debates that nobody ranked. Standard library only.

Sums are drawn here; arguments with people's choices are read from UKPConvArg1, which is no part of the project.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning_data import make_folds, native, read_ukp

TEST_SUMS, WATCHED_SUMS = 500, 100
WATCHED_DEBATES = 40

# --- sums -------------------------------------------------------------------------------------------------------------

# Sums done, so that the model answers with a number; they are no problems themselves. One of each kind, for with the
# first alone the model takes every sum for one more, and nearly none of its samples shows the other way.
SHOWN = ((817, 1), (340, 2))


def make_sums(seed: int) -> list[dict[str, Any]]:
    """Prompt lines ``a + b =`` with their answers, 100 ≤ a ≤ 999 and b of 1 or 2: 500 of test, 100 of validation.

    No two lines have the same two numbers, in whatever order.
    """
    sums = [(a, b) for a in range(100, 1000) for b in (1, 2) if (a, b) not in SHOWN]
    random.Random(seed).shuffle(sums)
    splits = ["test"] * TEST_SUMS + ["validation"] * WATCHED_SUMS
    splits += ["train"] * (len(sums) - len(splits))
    # An empty system message keeps out the template's own, which would be half of the prompt.
    shown = [turn for a, b in SHOWN for turn in (("user", f"{a} + {b} ="), ("assistant", str(a + b)))]
    return [
        _prompt([("system", ""), *shown, ("user", f"{a} + {b} =")], split=split, group=f"{a} {b}")
        | {"answer": str(a + b)}
        for (a, b), split in zip(sums, splits, strict=True)
    ]


def kind_of(group: str) -> str:
    """What is hard about a sum ``a b``: how much is added, and whether that passes a ten."""
    a, b = map(int, group.split())
    return f"+{b}, over a ten" if a % 10 + b >= 10 else f"+{b}"


# --- debates ----------------------------------------------------------------------------------------------------------

INSTRUCTION = "Answer in one sentence."
# Words that are about 30 tokens.
SHORT_ARGUMENT = 22
# Subjects that are none of UKPConvArg1's, each with the two sides of a debate.
SUBJECTS = """
    a four-day working week; daily homework; zoos; public transport without fares; a tax on sugar; nuclear power;
    electric cars; self-driving cars; working from home; open-plan offices; space travel; animal testing; bullfights;
    hunting for sport; eating meat; genetically modified crops; organic farming; plastic bags; fireworks;
    boxing; beauty contests; reality television; video games; mobile phones in class; laptops for every pupil;
    mixed-sex schools; single-sex sports; a later start of the school day; long summer holidays; marks at school;
    written exams; learning Latin; learning to code at school; handwriting lessons; cursive writing; music lessons;
    compulsory voting; voting at sixteen; a basic income for all; a minimum wage; a tax on inheritance; a tax on wealth;
    tipping in restaurants; cash; credit cards; daylight saving time; speed limits on motorways; bicycle helmets;
    cars in city centres; cheap flights; cruise ships; mass tourism; wind farms; solar panels on every roof; hydropower;
    coal mines; paper books; libraries; newspapers; advertising to children; online shopping; supermarkets that never
    close; shops open on Sundays; fast food; school lunches without meat; vending machines at school; energy drinks;
    coffee at work; naps at work; dress codes at work; job interviews; unpaid internships; paid parental leave;
    early retirement; trade unions; robots in factories; artificial intelligence in medicine; robots as carers; drones;
    cameras in public places; fingerprints in passports; social networks for children; anonymous comments online;
    free software; patents; copyright; museums without fees; public money for theatres; public money for sport;
    the Olympic Games; football as a school subject; chess as a school subject; cooking lessons; gardening at school;
    pets in flats; dogs in parks; keeping birds in cages; circuses with animals; fur coats; fast fashion; tattoos;
    cosmetic surgery; vaccination of all children; organ donation by default; medicine without prescriptions;
    health insurance for all; private hospitals; private schools; boarding schools; teaching at home; gap years;
    student loans; free universities; learning online; military service; a year of service for the young; juries;
    prisons; curfews for teenagers; life on Mars; high-rise buildings; suburbs; living in the country; big weddings;
    monarchies; national holidays; a world language; letters by post; alarm clocks
"""


def make_debates(folder: Path, *, seed: int) -> list[dict[str, Any]]:
    """The rankings of UKPConvArg1, one fold of debates as validation, and prompts of our own debates in their form.

    A debate lies in one split with both its sides.
    """
    judgements = read_ukp(folder)
    held_out = make_folds(judgements)[0]
    lines = [
        _with_system(
            native(judgement, number=number, split="validation" if judgement.group in held_out else "train")
        )
        for number, judgement in enumerate(judgements)
    ]  # fmt: skip
    subjects = [" ".join(subject.split()) for subject in SUBJECTS.split(";")]
    random.Random(seed).shuffle(subjects)
    for place, subject in enumerate(subjects):
        for side in ("for", "against"):
            text = f"Debate: {subject}\nSide: {side}\nMake a convincing argument for this side."
            split = "validation" if place < WATCHED_DEBATES else "train"
            lines.append(_with_system(_prompt([("user", text)], split=split, group=subject)))
    return lines


def make_short_arguments(lines: Sequence[dict[str, Any]], *, words: int = SHORT_ARGUMENT) -> list[dict[str, Any]]:
    """Demonstrations for SFT: the arguments of the train debates that have at most so many words, each once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        if line["split"] != "train" or line.get("type") == "prompt":
            continue
        for response in line["responses"]:
            if len(response["text"].split()) <= words:
                key = (line["prompt"][-1]["content"], response["text"])
                about = {name: line[name] for name in ("format", "prompt", "split", "split_group")}
                found[key] = about | {"type": "demonstration", "response": response["text"]}
    return list(found.values())


def _with_system(line: dict[str, Any]) -> dict[str, Any]:
    return line | {"prompt": [{"role": "system", "content": INSTRUCTION}, *line["prompt"]]}


def _prompt(messages: Sequence[tuple[str, str]], *, split: str, group: str) -> dict[str, Any]:
    prompt = [{"role": role, "content": content} for role, content in messages]
    return {"format": "plackett/1", "type": "prompt", "prompt": prompt, "split": split, "split_group": group}


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write a native file, unless it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
