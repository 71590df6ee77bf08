"""``python -m training.recipes.sample``: responses of one or several models to prompts, for people to compare.

Every model answers every prompt, one model after the other; a reward model may score what they say. Writes
DIR/responses.jsonl, a line a response, report.json with its page, run.json, metrics.jsonl and exit.json; with --stream
also tokens.jsonl, a line a piece of text as it is sampled.
"""

import sys
from typing import Any

from training.core.errors import UsageError
from training.core.files import write_json
from training.core.policy_reports import OFTEN_CUT, encoding_warnings
from training.core.report_page import write_report_files
from training.core.responses import read_responses, sampling_report, sampling_warnings
from training.core.runfolder import REPORT_NAME
from training.recipes.configs import SampleConfig
from training.recipes.launch import Session, is_finished, launch
from training.recipes.questions import (
    RESPONSES_NAME,
    Asked,
    Questions,
    look_at_inputs,
    prepare_questions,
    splits_of,
)
from training.recipes.responding import answer_all


def sample(session: Session[SampleConfig]) -> str:
    """Answer, score and report; returns what was done, in one line.

    Raises:
        UsageError: bad data or model, or a resume of another run.
        TrainingError: logits or a score are not finite, or memory does not suffice.
        StopRequested: asked to stop; the finished steps hold.
    """
    config = session.config
    asked = [Asked(model, config.samples_per_prompt) for model in config.model]
    questions = look_at_inputs(session, asked, judges={"--reward-model": config.reward_model})
    if is_finished(session):
        return "already finished"
    if config.stream and session.world.size > 1:
        raise UsageError("--stream is for one process: several answer different prompts at the same time")
    prepare_questions(session, questions, splits=splits_of(config.split))
    judges = {} if config.reward_model is None else {"score": config.reward_model}
    answer_all(session, questions, judges=judges, stream=config.stream)
    session.begin_finish(len(questions.steps))
    responses = len(questions.places) * sum(one.each for one in asked)
    if session.world.is_main:
        report = report_of(session, questions, keys=list(judges))
        write_report_files(session.folder, report, title=f"Responses of {', '.join(one.name for one in asked)}")
        write_json(session.folder / REPORT_NAME, report)
    return f"sampled {responses} responses to {len(questions.places)} prompts"


def report_of(session: Session[SampleConfig], questions: Questions, *, keys: list[str]) -> dict[str, Any]:
    """What ``report.json`` holds."""
    config = session.config
    found = read_responses(
        session.folder / RESPONSES_NAME, each=[one.each for one in questions.asked],
        prompts=len(questions.places), keys=keys,
    )  # fmt: skip
    names = [one.name for one in questions.asked]
    models = sampling_report(found, names, questions.groups(), seed=config.seed)
    warnings = sampling_warnings(models, often_cut=OFTEN_CUT)
    return {
        "kind": "sampling",
        "counts": questions.counts() | {"responses": sum(model["responses"] for model in models)},
        "split": config.split,
        "samples_per_prompt": config.samples_per_prompt,
        "temperature": config.temperature,
        "models": models,
        "warnings": warnings + encoding_warnings(questions.defused, questions.without_template),
    }


if __name__ == "__main__":
    sys.exit(launch("sample", SampleConfig, sample, results=(REPORT_NAME,)))
