"""What must hold of a run in whose midst something was killed: it is the run that would have been without."""

import json
from pathlib import Path
from typing import Any

from tests.chaos.census import trainers_in
from tests.chaos.ground import Ground
from tests.chaos.trial import Trial
from training.core.files import sha256_of

ATTEMPTS = {"trainer": 2, "worker": 2, "broker": 1, "database": 1, "servers": 1}
WEIGHTS = Path("out", "model", "model.safetensors")
Row = dict[str, Any]


def faults_of(ground: Ground, trial: Trial, undisturbed: Trial, *, checkpoint_every: int) -> list[str]:
    """Every way in which the run differs from what it should be; none if all is well."""
    assert trial.ended is not None
    if trial.ended.state != "succeeded":
        return [f"it ended as {trial.ended.state}: {trial.ended.reason}"]
    found = _faults_of_results(trial, undisturbed)
    found += _faults_of_metrics(ground, trial, undisturbed)
    found += _faults_of_attempts(ground, trial, checkpoint_every=checkpoint_every)
    if trial.census.most != 1:
        found.append(f"{trial.census.most} trainers lived at once")
    if left := trainers_in(trial.folder):
        found.append(f"left running: {left}")
    if copies := [*trial.folder.glob("data-*"), *trial.folder.glob("tokens-*")]:
        found.append(f"left lying: {[path.name for path in copies]}")
    return found


def _faults_of_results(trial: Trial, undisturbed: Trial) -> list[str]:
    mine, theirs = (sha256_of(one.folder / WEIGHTS) for one in (trial, undisturbed))
    return [] if mine == theirs else ["the weights differ from the undisturbed run's"]


def _faults_of_metrics(ground: Ground, trial: Trial, undisturbed: Trial) -> list[str]:
    found = []
    file, other = lines_of(trial.folder), lines_of(undisturbed.folder)
    steps = list(range(1, len(other) + 1))
    if [row["step"] for row in file] != steps:
        found.append(f"steps in the file: {_odd([row['step'] for row in file], steps)}")
    elif differing := _differing(file, other):
        found.append(f"the file's figures differ from the undisturbed run's: {differing[:10]}")
    rows = ground.ask('SELECT step, "values" FROM training_runmetric WHERE run_id = %s ORDER BY step', trial.run)
    if [step for step, _ in rows] != steps:
        found.append(f"steps in the database: {_odd([step for step, _ in rows], steps)}")
    elif [values for _, values in rows] != [
        {name: value for name, value in row.items() if name not in {"step", "attempt"}} for row in file
    ]:
        found.append("the database's figures differ from the file's")
    return found


def _faults_of_attempts(ground: Ground, trial: Trial, *, checkpoint_every: int) -> list[str]:
    found = []
    sql = "SELECT outcome, from_step FROM training_runattempt WHERE run_id = %s ORDER BY number"
    attempts = ground.ask(sql, trial.run)
    allowed = ATTEMPTS.get(trial.victim, 1)
    outcomes = ["lost"] * (allowed - 1) + ["succeeded"]
    if [outcome for outcome, _ in attempts] != outcomes:
        found.append(f"attempts {attempts}, expected {outcomes}")
    # The checkpoint of a step is published before the next step's row, so that one at least was there.
    kept = (trial.step_when_killed - 1) // checkpoint_every * checkpoint_every
    if len(attempts) > 1 and (attempts[-1][1] is None or attempts[-1][1] < kept):
        found.append(f"it went on from step {attempts[-1][1]}, but a checkpoint of step {kept} was there")
    (models,) = ground.ask("SELECT count(*) FROM training_modelversion WHERE run_id = %s", trial.run)
    if models != (1,):
        found.append(f"{models[0]} models in the registry")
    return found


def lines_of(folder: Path) -> list[Row]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]


def measured(row: Row) -> Row:
    """What training computed at a step, without times and attempts."""
    return {name: value for name, value in row.items() if name != "attempt" and not name.startswith("time/")}


def _differing(file: list[Row], other: list[Row]) -> list[str]:
    """Where what training computed is not the same: step, name and both values."""
    pairs = [(measured(one), measured(two)) for one, two in zip(file, other, strict=True)]
    return [
        f"step {one['step']}, {name}: {one.get(name)} instead of {two.get(name)}"
        for one, two in pairs
        for name in sorted(one.keys() | two.keys())
        if name not in one or name not in two or one[name] != two[name]
    ]


def _odd(found: list[int], expected: list[int]) -> str:
    missing = sorted(set(expected) - set(found))
    double = sorted({step for step in found if found.count(step) > 1})
    return f"missing {missing[:10]}, twice {double[:10]}, {len(found)} in all of {len(expected)}"
