"""Many runs, each with one part killed (SIGKILL) once at a random moment between its first and its last step.

    make chaos
    python -m tests.chaos --runs 3 --victims trainer database --kinds reward

The victims take turns, so that each part lives long enough between two kills for the supervisor to forget the one
before. Ends with a table; what was seen of every run stands in the log, a JSON object a line. Exit status 1 if anything
was lost. With the defaults (20 runs a victim) about two hours on two cores; `--minutes` ends it before.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from tests.chaos.courses import CHECKPOINT_EVERY, model_of, undisturbed_run
from tests.chaos.ground import Ground, open_ground
from tests.chaos.trial import VICTIMS, Course, Lost, Trial, draw_share, run_trial
from tests.chaos.verdict import faults_of

Entry = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Carries the trials out; 0 if every run came to what it would have been."""
    options = parser().parse_args(arguments)
    # Also where a shell started us in the background, which makes programs deaf to Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    entries: list[Entry] = []
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with options.log.open("a", buffering=1) as log, open_ground() as ground:
        try:
            for entry in trials(ground, options):
                entries.append(entry)
                log.write(json.dumps(entry) + "\n")
        except KeyboardInterrupt:
            print("interrupted: the table is of what was done", flush=True)
    show_table(entries, options.victims, sys.stdout)
    return 1 if any(entry["faults"] for entry in entries) else 0


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=int, default=20, help="runs for each victim (20)")
    made.add_argument("--victims", nargs="+", choices=VICTIMS, default=["trainer", "worker", "broker", "database"])
    made.add_argument(
        "--kinds", nargs="+", choices=list(CHECKPOINT_EVERY), default=["reward", "ppo"], help="take turns"
    )
    made.add_argument("--seconds", type=float, default=20.0, help="that the steps of an undisturbed run take, at least")
    made.add_argument("--seed", type=int, default=0, help="of the moments")
    made.add_argument("--minutes", type=float, default=180.0, help="no further run is begun after these")
    made.add_argument("--log", type=Path, default=Path("var/chaos.jsonl"), help="a line per run (var/chaos.jsonl)")
    return made


def trials(ground: Ground, options: argparse.Namespace) -> Iterable[Entry]:
    """Every run in turn, as it is written to the log; first the undisturbed ones."""
    ends_at = time.monotonic() + 60 * options.minutes
    undisturbed = dict(undisturbed_runs(ground, options))
    for number in range(options.runs):
        for victim in options.victims:
            if time.monotonic() > ends_at:
                print(f"the {options.minutes:g} minutes are over", flush=True)
                return
            kind = options.kinds[number % len(options.kinds)]
            entry = one_trial(ground, options, victim, number, *undisturbed[kind])
            print(sentence_of(entry), flush=True)
            yield entry


def undisturbed_runs(ground: Ground, options: argparse.Namespace) -> Iterable[tuple[str, tuple[Course, Trial]]]:
    """One run per kind to compare with."""
    scorer = ""
    # PPO reads a reward model, so one is trained first in any case.
    for kind in sorted({"reward", *options.kinds}, key=["reward", "ppo"].index):
        named = {"reward_model": scorer} if kind == "ppo" else None
        course, trial = undisturbed_run(ground, kind, seconds=options.seconds, named=named)
        if kind == "reward":
            scorer = model_of(ground, trial)
        steps, seconds = trial.timeline.step, trial.timeline.seconds
        print(f"undisturbed: {kind}, {steps} steps in {seconds:.1f} s, {trial.seconds:.1f} s in all", flush=True)
        yield kind, (course, trial)


def one_trial(
    ground: Ground, options: argparse.Namespace, victim: str, number: int, course: Course, undisturbed: Trial
) -> Entry:
    """Carries out one run with one kill, and judges it."""
    share = draw_share(options.seed, victim, number)
    if victim != "trainer":
        ground.rest(victim)
    entry: Entry = {"victim": victim, "number": number, "kind": course.kind, "load": os.getloadavg()[0], "share": share}
    try:
        trial = run_trial(ground, course, victim=victim, undisturbed=undisturbed, share=share)
    except Lost as lost:
        return entry | {"faults": [str(lost)]}
    faults = faults_of(ground, trial, undisturbed, checkpoint_every=CHECKPOINT_EVERY[course.kind])
    assert trial.moment is not None and trial.ended is not None
    entry |= {
        "run": trial.run,
        "faults": faults,
        "moment": asdict(trial.moment),
        "killed": trial.killed,
        "killed_at": trial.killed_wall,
        "step_when_killed": trial.step_when_killed,
        "steps": undisturbed.timeline.step,
        "back_after": trial.back_after,
        "started_after": trial.started_after,
        "most_trainers": trial.census.most,
        "ended": asdict(trial.ended),
        "went_on_from": [row[0] for row in ground.ask(FROM_STEPS, trial.run)],
        "seconds": trial.seconds,
    }
    if faults:
        entry["worker_log"] = ground.log_of("worker-gpu")
    return entry


FROM_STEPS = "SELECT from_step FROM training_runattempt WHERE run_id = %s ORDER BY number"


def sentence_of(entry: Entry) -> str:
    """One trial in one line."""
    start = f"{time.strftime('%H:%M:%S')} {entry['victim']:9}{entry['number']:3} {entry['kind']:7}"
    if "run" not in entry:
        return f"{start} LOST: {entry['faults'][0]}"
    what = "; ".join(entry["faults"]) or "as undisturbed"
    return (
        f"{start} killed at {entry['share']:.2f} of its time (step {entry['step_when_killed']} of {entry['steps']}), "
        f"back after {entry['back_after'] or -1:.1f} s, went on from {entry['went_on_from']}, "
        f"{entry['seconds']:.0f} s in all: {what}"
    )


def show_table(entries: list[Entry], victims: list[str], to: TextIO) -> None:
    """Per victim: runs, those that came to what they would have been, and how long the service was away."""
    print(
        f"\n{'victim':10}{'runs':>6}{'equal':>7}{'back after, s (median)':>25}{'(most)':>9}{'run, s (most)':>15}",
        file=to,
    )
    for victim in victims:
        mine = [entry for entry in entries if entry["victim"] == victim]
        equal = sum(not entry["faults"] for entry in mine)
        back = [entry["back_after"] for entry in mine if entry.get("back_after") is not None] or [float("nan")]
        most = max((entry.get("seconds", float("nan")) for entry in mine), default=float("nan"))
        print(
            f"{victim:10}{len(mine):>6}{equal:>7}{statistics.median(back):>25.1f}{max(back):>9.1f}{most:>15.0f}",
            file=to,
        )
    for entry in entries:
        if entry["faults"]:
            print(f"{entry['victim']} {entry['number']} ({entry['kind']}): {'; '.join(entry['faults'])[:500]}", file=to)


if __name__ == "__main__":
    sys.exit(main())
