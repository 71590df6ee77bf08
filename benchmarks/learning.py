"""What a reward model learns from public data: arguments, votes with ties, dialogues; beside the length rule and TRL.

    python -m training.recipes.smollm2 --output smollm2
    python -m benchmarks.learning ukp  --data DATA --model smollm2 --output OUT    # five folds, ours against length
    python -m benchmarks.learning peer --data DATA --model smollm2 --output OUT    # equal pairs, ours against TRL
    python -m benchmarks.learning ties --data DATA --model smollm2 --output OUT    # losses with ties against without
    python -m benchmarks.learning hh   --data DATA --model smollm2 --output OUT    # dialogues, ours against TRL

DATA holds the folders ``ukpconvarg1``, ``pandalm`` and ``hh_helpful`` as their authors publish them. Training runs in
processes of their own; what is done already in OUT is not done again, so an interrupted experiment goes on. A test
split is scored once, when its training has ended. OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES act as they do elsewhere.
"""

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.learning_data import (
    Judgement,
    draw_groups,
    make_folds,
    read_hh,
    read_pandalm,
    read_ukp,
    write_native,
)
from benchmarks.learning_figures import (
    Curve,
    Floats,
    constant_chances,
    davidson,
    fit_tie,
    fit_tie_and_factor,
    outcome_losses,
    over_groups,
    rao_kupper,
    right,
)
from benchmarks.learning_models import run_scorer, run_trl, score, seconds_of, train_ours, train_peer, trained_scale

WARMUP = 0.05

# Differences of scores, and who won: 0 or 1, None for a tie.
Judged = tuple[Floats, Sequence[int | None]]


# --- five folds of debates --------------------------------------------------------------------------------------------


def ukp(options: argparse.Namespace) -> None:
    """Every debate once in a test fold: the accuracy of our model beside the length rule on the same pairs."""
    judgements = read_ukp(options.data / "ukpconvarg1" / "strict")
    parts = make_folds(judgements)
    margins: list[Floats] = []
    tested: list[Judgement] = []
    print("| fold | debates | topics | pairs | ours | longer wins | minutes |\n|---:|---:|---:|---:|---:|---:|---:|")
    for fold in options.folds:
        train, test = _split(judgements, parts[fold])
        folder = options.output / f"ukp-{fold}"
        write_native(folder / "data.jsonl", {"train": train, "test": test})
        model = train_ours(
            folder / "data.jsonl", folder / "ours", model=options.model, settings=_settings(options)
        )  # fmt: skip
        margins.append(_margins(test, score(model, folder / "data.jsonl", split="test")))
        tested += test
        ours, length = right(margins[-1]).mean(), right(_length_margins(test)).mean()
        topics = len({judgement.prompt for judgement in test})
        minutes = seconds_of(folder / "ours") / 60
        print(
            f"| {fold} | {len(parts[fold])} | {topics} | {len(test)} | {ours:.3f} | {length:.3f} | {minutes:.1f} |",
            flush=True,
        )
    _compare(tested, {"ours": np.concatenate(margins), "longer wins": _length_margins(tested)})


# --- equal pairs seen -------------------------------------------------------------------------------------------------


def peer(options: argparse.Namespace) -> None:
    """One fold: the same drawn pairs once through our recipe and once through TRL, in as many steps, at one rate."""
    judgements = read_ukp(options.data / "ukpconvarg1" / "strict")
    train, test = _split(judgements, make_folds(judgements)[options.folds[0]])
    topics = defaultdict(list)
    for judgement in train:
        topics[judgement.prompt].append(judgement)
    draw = random.Random(options.seed)
    drawn = [each for members in topics.values() for each in draw.sample(members, options.pairs // len(topics))]
    print(f"{len(drawn)} pairs of {len(topics)} topics, {options.pairs // len(topics)} each and in each step")
    _against_trl(
        options, options.output / "peer", drawn, test, batch_size=1, pairs_per_step=options.pairs // len(topics)
    )


def hh(options: argparse.Namespace) -> None:
    """Single-label dialogues: the same pairs, batch and rate for both trainers."""
    judgements = read_hh(options.data / "hh_helpful" / "helpful.first1852.json")
    train, rest = _split(judgements, draw_groups(judgements, at_least=options.pairs, seed=options.seed), invert=True)
    test = random.Random(options.seed).sample(rest, min(options.test_pairs, len(rest)))
    print(f"{len(train)} pairs for training, {len(test)} of the {len(rest)} others for test")
    _against_trl(options, options.output / "hh", train, test, batch_size=8, pairs_per_step=8)


def _against_trl(
    options: argparse.Namespace,
    folder: Path,
    train: Sequence[Judgement],
    test: Sequence[Judgement],
    *,
    batch_size: int,
    pairs_per_step: int,
) -> None:
    data = folder / "data.jsonl"
    write_native(data, {"train": train, "test": test})
    settings = _settings(options) | {"batch-size": batch_size, "epochs": 1}
    ours = train_ours(data, folder / "ours", model=options.model, settings=settings)
    same = {name: settings[name] for name in ("learning-rate", "lora-rank", "warmup", "seed")}
    theirs = train_peer(
        data, folder / "trl", model=options.model, settings=same | {"pairs-per-step": pairs_per_step}
    )  # fmt: skip
    print(f"minutes: ours {seconds_of(folder / 'ours') / 60:.1f}, TRL {seconds_of(folder / 'trl') / 60:.1f}")
    margins = {
        "ours": _margins(test, score(ours, data, split="test")),
        "TRL": _margins(test, score(theirs, data, split="test")),
        "longer wins": _length_margins(test),
    }
    _compare(test, margins)


# --- ties -------------------------------------------------------------------------------------------------------------


def ties(options: argparse.Namespace) -> None:
    """Three people's votes, ties among them: the held-out loss of three outcomes, per way of using ties in training.

    Each model's score differences become three chances by the curve it was trained with, Rao–Kupper's where ties were
    left out. First as trained: with the learned tie parameter, or, where there is none, the one that fits the votes of
    the training split best. Then with the tie parameter and a factor on the differences fitted so for all models alike.
    """
    votes = read_pandalm(options.data / "pandalm" / "testset-v1.json")
    test_groups = draw_groups(votes, at_least=len(votes) // 3, seed=options.seed)
    train, test = _split(votes, test_groups)
    folder = options.output / "ties"
    data = folder / "data.jsonl"
    write_native(data, {"train": train, "test": test})
    train_said, said = ([vote.winner for vote in part] for part in (train, test))
    print(f"{len(train)} votes for training, {len(test)} on {len(test_groups)} other prompts for test")

    losses: dict[str, tuple[Floats | None, Floats]] = {}
    held_out: dict[str, Floats] = {}
    for way in options.ways:
        settings = _settings(options) | {"ties": way}
        model = train_ours(data, folder / way, model=options.model, settings=settings)
        fitted, held_out[way] = (_differences(score(model, data, split=split)) for split in ("train", "test"))
        scale, tie = trained_scale(model)
        losses[way] = _held_out_losses(
            davidson if way == "davidson" else rao_kupper,
            (fitted * scale, train_said),
            (held_out[way] * scale, said),
            tie=tie,
        )
        print(f"{way}: {seconds_of(folder / way) / 60:.1f} minutes", flush=True)
    lengths = [_differences([tuple(map(len, vote.responses)) for vote in part]) for part in (train, test)]
    by_length = _held_out_losses(rao_kupper, (lengths[0], train_said), (lengths[1], said), tie=None)
    losses["length"] = (None, by_length[1])
    losses["constant shares"] = (None, outcome_losses(constant_chances(train_said, rows=len(said)), said))
    _compare_losses(losses, base=options.ways[0], groups=[vote.group for vote in test])

    strict = [place for place, winner in enumerate(said) if winner is not None]
    strict_votes = [test[place] for place in strict]
    signs = _signs(strict_votes)
    margins = {way: held_out[way][strict] * signs for way in options.ways}
    _compare(strict_votes, margins | {"longer wins": _length_margins(strict_votes)})


def _held_out_losses(
    curve: Curve, fitted: Judged, held_out: Judged, *, tie: float | None
) -> tuple[Floats, Floats]:  # fmt: skip
    """The losses with ``tie``, fitted where it is None, and with that and a factor fitted; ``Judged``: Δ and votes."""
    alone = fit_tie(curve, *fitted) if tie is None else tie
    both, factor = fit_tie_and_factor(curve, *fitted)
    difference, said = held_out
    print(f"tie parameter e^{alone:.3f}; with the factor {factor:.3g}, e^{both:.3f}")
    return outcome_losses(curve(difference, alone), said), outcome_losses(curve(difference * factor, both), said)


def _compare_losses(
    losses: dict[str, tuple[Floats | None, Floats]], *, base: str, groups: Sequence[str]
) -> None:  # fmt: skip
    """Each mean loss, and each difference to ``base``, with intervals over groups."""
    print("\n| ties in training | as trained | curve fitted |\n|---|---|---|")
    for name, columns in losses.items():
        cells = ["" if column is None else str(over_groups([column], groups)[0]) for column in columns]
        print(f"| {name} | {cells[0]} | {cells[1]} |")
        cells = [
            "" if column is None or name == base else str(over_groups([column - own], groups)[0])
            for column, own in zip(columns, losses[base], strict=True)
        ]
        if any(cells):
            print(f"| {name} − {base} | {cells[0]} | {cells[1]} |", flush=True)


# --- shared -----------------------------------------------------------------------------------------------------------


def _settings(options: argparse.Namespace) -> dict[str, object]:
    return {
        "learning-rate": options.learning_rate,
        "lora-rank": options.lora_rank,
        "warmup": WARMUP,
        "epochs": options.epochs,
        "batch-size": options.batch_size,
        "micro-batch-tokens": options.micro_batch_tokens,
        "seed": options.seed,
    }


def _split(
    judgements: Sequence[Judgement], groups: set[str], *, invert: bool = False
) -> tuple[list[Judgement], list[Judgement]]:
    """Those of other groups and those of ``groups``; the other way round with ``invert``."""
    others = [judgement for judgement in judgements if judgement.group not in groups]
    members = [judgement for judgement in judgements if judgement.group in groups]
    return (members, others) if invert else (others, members)


def _differences(scores: Sequence[tuple[float, float]]) -> Floats:
    return np.array([first - second for first, second in scores], dtype=float)


def _margins(judgements: Sequence[Judgement], scores: Sequence[tuple[float, float]]) -> Floats:
    """Score of the winner minus score of the loser."""
    return _differences(scores) * _signs(judgements)


def _signs(judgements: Sequence[Judgement]) -> Floats:
    """1 where the first won, −1 where the second did."""
    return np.array([1.0 - 2.0 * judgement.winner for judgement in judgements])


def _length_margins(judgements: Sequence[Judgement]) -> Floats:
    return _margins(judgements, [tuple(map(len, judgement.responses)) for judgement in judgements])


def _compare(judgements: Sequence[Judgement], margins: dict[str, Floats]) -> None:
    """Accuracies, and each difference to the first, with intervals over groups; over prompts where they are fewer."""
    shares = {name: right(margin) for name, margin in margins.items()}
    first = next(iter(shares))
    differences = {f"{first} − {name}": shares[first] - column for name, column in shares.items() if name != first}
    columns = shares | differences
    units = {"groups": [each.group for each in judgements], "prompts": [str(each.prompt) for each in judgements]}
    print(f"\n{len(judgements)} pairs; intervals over " + ", ".join(f"{len(set(u))} {n}" for n, u in units.items()))
    print("| | over groups | over prompts |\n|---|---|---|")
    found = [over_groups(list(columns.values()), unit) for unit in units.values()]
    for name, by_group, by_prompt in zip(columns, *found, strict=True):
        print(f"| {name} | {by_group} | {by_prompt} |", flush=True)


# --- the command line -------------------------------------------------------------------------------------------------


def main() -> int:
    options = _parse()
    if options.command is None:
        print("needs data that are not part of the project: see python -m benchmarks.learning --help")
        return 0
    if options.command == "trl":
        run_trl(**_without_command(options))
    elif options.command == "score":
        run_scorer(**_without_command(options))
    elif not options.data.is_dir():
        print(f"no data at {options.data}: nothing was run")
    else:
        {"ukp": ukp, "peer": peer, "ties": ties, "hh": hh}[options.command](options)
    return 0


def _without_command(options: argparse.Namespace) -> dict[str, object]:
    return {name: value for name, value in vars(options).items() if name != "command"}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    for name in ("ukp", "peer", "ties", "hh"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, required=True, help="folder of the data sets")
        command.add_argument("--model", required=True, help="model folder to start from")
        command.add_argument("--output", type=Path, required=True, help="folder to write and to go on in")
        command.add_argument("--learning-rate", type=float, default=1e-3)
        command.add_argument("--lora-rank", type=int, default=16, help="0 trains the whole model")
        command.add_argument("--epochs", type=int, default=1)
        command.add_argument("--batch-size", type=int, default={"ties": 4}.get(name, 1), help="prompts a step")
        command.add_argument("--micro-batch-tokens", type=int, default=512)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
        command.add_argument("--pairs", type=int, default={"hh": 1500}.get(name, 2000), help="pairs to train on")
        command.add_argument("--test-pairs", type=int, default=100_000, help="pairs to test on, at most")
        command.add_argument("--ways", nargs="+", default=["skip", "rao-kupper", "davidson"], help="values of --ties")
    trl = commands.add_parser("trl", help="TRL's RewardTrainer on the split train of a native file")
    scorer = commands.add_parser("score", help="the scores of a reward model for a split of a native file")
    for command in (trl, scorer):
        command.add_argument("--model", required=True)
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--output", type=Path, required=True)
    trl.add_argument("--learning-rate", type=float, required=True)
    trl.add_argument("--lora-rank", type=int, required=True)
    trl.add_argument("--pairs-per-step", type=int, required=True)
    trl.add_argument("--warmup", type=float, required=True)
    trl.add_argument("--seed", type=int, required=True)
    scorer.add_argument("--split", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
