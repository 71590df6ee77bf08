"""Whether PPO and GRPO teach a real model: sums with checkable answers, and arguments that a reward model judges.

    python -m training.recipes.smollm2 --output smollm2
    python -m benchmarks.policies sums    --model smollm2 --output OUT                # GRPO, numeric reward
    python -m benchmarks.policies debates --data DATA --model smollm2 --output OUT    # SFT, reward model, PPO, judge

DATA holds the folder ``ukpconvarg1`` as its authors publish it. Training runs in processes of their own; what is done
already in OUT is not done again and what was interrupted goes on, so the same command continues an experiment.
OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES act as they do elsewhere.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.learning_figures import over_groups
from benchmarks.learning_models import read_records
from benchmarks.policies_data import kind_of, make_debates, make_short_arguments, make_sums, write_lines
from benchmarks.policies_runs import answers, read_metrics, run_answer, run_recipe, seconds_of

WAYS = ("sampled", "greedy")
SHOWN_ANSWERS = 4

# --- sums -------------------------------------------------------------------------------------------------------------


def sums(options: argparse.Namespace) -> None:
    """500 sums that were never trained on, answered before and after; the test split is touched when training is over.

    The success is decided by the sampled answers, at the temperature of training; greedy ones stand beside.
    """
    folder = options.output / "sums"
    data = folder / "data.jsonl"
    write_lines(data, make_sums(options.seed))
    settings = _shared(options) | {
        "data": data,
        "reward": "numeric",
        "advantage": "grpo",
        "batch-size": options.prompts or 8,
        "samples-per-prompt": 8,
        "max-response-length": 16,
        "kl-coefficient": 0.02,
        "entropy-coefficient": 0.01,
        "evaluation-prompts": options.evaluation_prompts or 50,
    }
    run = folder / "grpo"
    report = run_recipe("ppo", run, settings)
    _print_run(run, report)
    models = {"before": options.model, "after": run / "model"}
    for way in WAYS:
        found = {
            name: answers(model, data, split="test", way=way, kept=folder / f"{name}-{way}.json")
            for name, model in models.items()
        }
        kinds = [kind_of(record["split_group"]) for record in read_records(data, split="test")]
        _compare_sums(found, kinds, way=way)


def _compare_sums(
    found: Mapping[str, Sequence[Mapping[str, Any]]], kinds: Sequence[str], *, way: str
) -> None:  # fmt: skip
    """Shares of right answers with a paired interval over problems, of all and by kind."""
    before, after = (np.array([each["right"] for each in found[name]], dtype=float) for name in ("before", "after"))
    problems = [str(place) for place in range(len(before))]
    columns = over_groups([before, after, after - before], problems)
    print(
        f"\n{len(before)} sums that were not trained on, {way} answers of at most 16 tokens; 95 % intervals over sums"
    )
    print("| | right |\n|---|---|")
    for name, share in zip(("before", "after", "after − before, paired"), columns, strict=True):
        print(f"| {name} | {share} |")
    for kind in sorted(set(kinds)):
        these = np.array(kinds) == kind
        shares = [column[these].mean() for column in (before, after)]
        print(f"of {these.sum()} sums with {kind}: {shares[0]:.3f} before, {shares[1]:.3f} after")
    ended = [np.mean([each["ended"] for each in found[name]]) for name in ("before", "after")]
    print(f"ended by itself: {ended[0]:.3f} before, {ended[1]:.3f} after; "
          f"{int((after > before).sum())} sums gained, {int((after < before).sum())} lost")  # fmt: skip
    for name in ("before", "after"):
        print(f"{name}: " + " | ".join(repr(each["text"]) for each in found[name][:SHOWN_ANSWERS]))
    if way == WAYS[0]:
        print("SUCCESS" if columns[2].low > 0 else "FAILURE", ": the interval's lower bound is "
              f"{columns[2].low:.3f}", sep="", flush=True)  # fmt: skip


# --- debates ----------------------------------------------------------------------------------------------------------


def debates(options: argparse.Namespace) -> None:
    """SFT on short arguments, a reward model from one half of the debates, a judge from the other, and prompts that
    none of them has met."""
    folder = options.output / "debates"
    data = folder / "data.jsonl"
    lines = make_debates(options.data / "ukpconvarg1" / "strict", seed=options.seed)
    write_lines(data, lines)
    if not options.without_sft:
        options.model = str(_taught(folder, lines, options))
    reward = folder / "reward"
    learned = run_recipe("reward", reward, {
        "model": options.model, "data": data, "half": "first", "lora-rank": options.lora_rank, "learning-rate": 1e-3,
        "batch-size": 1, "epochs": 2, "seed": options.seed,
    })  # fmt: skip
    print(f"reward model: {_accuracy(learned['validation']['accuracy'])} on the fold of debates that was held out")
    settings = _shared(options) | {
        "data": data,
        "reward-model": reward,
        "advantage": "gae",
        "batch-size": options.prompts or 16,
        "max-prompt-length": 48,
        "max-response-length": 32,
        "kl-coefficient": 0.05,
        # Most answers of the model as it comes are cut off at 32 tokens. At the usual 1.0 it first learns to be short.
        "missing-eos-penalty": 0.25 if options.without_sft else 1.0,
        "evaluation-prompts": options.evaluation_prompts or 80,
    }
    run = folder / "ppo"
    report = run_recipe("ppo", run, settings)
    print(f"judge: {_accuracy(report['judge']['accuracy'])} on the same fold; "
          f"its data apart from the reward model's: {report['judge']['disjoint']}")  # fmt: skip
    _print_run(run, report)


def _taught(folder: Path, lines: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> Path:
    """The model after SFT on arguments that end within 32 tokens.

    Reward models learn from whole answers, and the model as it comes seldom ends one in so few.
    """
    demonstrations = folder / "sft.jsonl"
    write_lines(demonstrations, make_short_arguments(lines))
    report = run_recipe("sft", folder / "sft", {
        "model": options.model, "data": demonstrations, "lora-rank": options.lora_rank, "learning-rate": 5e-4,
        "epochs": 3, "seed": options.seed,
    })  # fmt: skip
    print(f"SFT: {report['steps']} steps on {len(demonstrations.read_text().splitlines())} arguments")
    return folder / "sft" / "model"


def _accuracy(found: Mapping[str, Any]) -> str:
    return f"accuracy {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}) of {found['pairs']} pairs"


# --- shared -----------------------------------------------------------------------------------------------------------


def _shared(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": options.model,
        "lora-rank": options.lora_rank,
        "learning-rate": options.learning_rate,
        "max-steps": options.steps,
        "inner-epochs": 1,
        "evaluate-every": options.evaluate_every,
        "checkpoint-every": 5,
        "seed": options.seed,
    }


def _print_run(run: Path, report: Mapping[str, Any]) -> None:
    """The curves of a run, and its report's figures before and after."""
    rows = read_metrics(run)
    print(f"\n{report['steps']} steps in {seconds_of(run) / 60:.1f} minutes; suspect: {report['suspect'] or 'no'}")
    _print_curve(rows)
    _print_held_out(report["curve"])
    if "before" not in report:
        return
    before, after, change = report["before"], report["after"], report["change"]
    print(f"\n{report['split']}, one sampled answer each\n| | before | after | change, paired |\n|---|---:|---:|---|")
    for name in before:
        if isinstance(before[name], float):
            print(f"| {name} | {before[name]:.3f} | {after[name]:.3f} | {_interval(change.get(name))} |")
    for name in ("win_rate", "length_controlled_win_rate", "best_of_4"):
        print(f"{name.replace('_', ' ')}: {_interval(_value(report.get(name)))}", flush=True)


def _print_curve(rows: Sequence[Mapping[str, Any]], *, points: int = 10) -> None:
    """Training figures, means over equal stretches of the steps."""
    columns: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
        "score": lambda row: row["ppo/score_mean"],
        "KL, nats a response": lambda row: row["ppo/kl"],
        "entropy, nats a token": lambda row: row["ppo/entropy"],
        "tokens": lambda row: row["ppo/length_mean"],
        "ended": lambda row: row["ppo/eos_rate"],
        "clipped": lambda row: row["ppo/clip_fraction"],
        "explained variance": lambda row: row["ppo/explained_variance"],
        "s a step": lambda row: row["time/step_seconds"],
    }
    print("\n| steps | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    size = max(1, len(rows) // points)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        cells = [_mean([of(row) for row in part]) for of in columns.values()]
        print(f"| {part[0]['step']}–{part[-1]['step']} | " + " | ".join(cells) + " |")


def _print_held_out(curve: Sequence[Mapping[str, Any]]) -> None:
    """The evaluations on held-out prompts along the run, the first before any step."""
    names = ("score", "judge", "kl", "length")
    print("\n| held out, after step | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
    for point in curve:
        print(f"| {point['step']} | " + " | ".join(_mean([point[name]]) for name in names) + " |")


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.3f}" if known else ""


def _value(found: Any) -> Any:
    """The statistic itself, or the win rate within it."""
    return found.get("win_rate", found) if isinstance(found, dict) else found


def _interval(found: Any) -> str:
    if not isinstance(found, dict) or found.get("value") is None:
        return ""
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


# --- the command line -------------------------------------------------------------------------------------------------


def main() -> int:
    options = _parse()
    if options.command is None:
        print("needs a model that is not part of the project: see python -m benchmarks.policies --help")
        return 0
    if options.command == "answer":
        run_answer(**{name: value for name, value in vars(options).items() if name != "command"})
    elif options.command == "debates" and not options.data.is_dir():
        print(f"no data at {options.data}: nothing was run")
    else:
        {"sums": sums, "debates": debates}[options.command](options)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    for name in ("sums", "debates"):
        command = commands.add_parser(name)
        if name == "debates":
            command.add_argument("--data", type=Path, required=True, help="folder of the data sets")
            command.add_argument("--without-sft", action="store_true", help="start from the model as it comes")
        command.add_argument("--model", required=True, help="model folder to start from")
        command.add_argument("--output", type=Path, required=True, help="folder to write and to go on in")
        command.add_argument("--steps", type=int, default=100)
        command.add_argument("--learning-rate", type=float, default={"sums": 2e-4, "debates": 3e-4}[name])
        command.add_argument("--lora-rank", type=int, default=16)
        command.add_argument("--prompts", type=int, help="prompts a step (unset: 8 sums, 16 debates)")
        command.add_argument("--evaluation-prompts", type=int, help="prompts of the curves (unset: 50 sums, 80 sides)")
        command.add_argument("--evaluate-every", type=int, default=20, help="steps between points of the curves")
        command.add_argument("--seed", type=int, default=0)
    answer = commands.add_parser("answer", help="what a model answers to a split of a native file")
    answer.add_argument("--model", type=Path, required=True)
    answer.add_argument("--data", type=Path, required=True)
    answer.add_argument("--split", required=True)
    answer.add_argument("--way", choices=WAYS, required=True)
    answer.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
