"""``python -m training.recipes.evaluate_policy``: a policy beside another on held-out prompts, by a reward model.

Both answer the same prompts with the same draws, the baseline four times more, to see what choosing the best-scored
response is worth without training. Writes responses.jsonl, report.json with its page, blind pairs for people to judge,
run.json, metrics.jsonl and exit.json.
"""

import sys
from typing import Any

from training.core.bootstrap import Floats
from training.core.errors import UsageError
from training.core.files import shown_name, write_json
from training.core.policy_reports import policy_warnings
from training.core.policy_statistics import Answers
from training.core.report_page import write_report_files
from training.core.responses import Responses, read_responses
from training.core.runfolder import REPORT_NAME
from training.recipes.comparison import BEST_OF, Side, compare_sides
from training.recipes.configs import EvaluatePolicyConfig
from training.recipes.judging import JudgeFacts, accuracy_at, are_disjoint, reward_run_at, teacher_of
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

JUDGE, SCORE = "judge", "score"


def evaluate_policy(session: Session[EvaluatePolicyConfig]) -> str:
    """Answer, judge and report; returns what was found, in one line.

    Raises:
        UsageError: bad data or models, or a resume of another run.
        TrainingError: logits or a score are not finite, or memory does not suffice.
        StopRequested: asked to stop; the finished steps hold.
    """
    config = session.config
    # One response of each is compared; the others of the baseline are there to be chosen from.
    asked = [Asked(config.baseline, 1 + BEST_OF), Asked(config.model, 1)]
    named = {"--judge": config.judge, "--reward-model": config.reward_model}
    questions = look_at_inputs(session, asked, judges=named)
    if config.judge == config.reward_model:
        raise UsageError("--judge and --reward-model name one model: the score would judge its own choice")
    if is_finished(session):
        return "already finished"
    prepare_questions(session, questions, splits=splits_of(config.split))
    judges = {JUDGE: config.judge} | ({} if config.reward_model is None else {SCORE: config.reward_model})
    answer_all(session, questions, judges=judges)
    session.begin_finish(len(questions.steps))
    report = report_of(session, questions, keys=list(judges))
    if session.world.is_main:
        title = f"{shown_name(config.model)} beside {shown_name(config.baseline)}"
        write_report_files(session.folder, report, title=title)
        write_json(session.folder / REPORT_NAME, report)
    win = report["win_rate"]
    return f"{100 * win['value']:.0f} % preferred by the judge, over {win['prompts']} prompts"


def report_of(session: Session[EvaluatePolicyConfig], questions: Questions, *, keys: list[str]) -> dict[str, Any]:
    """What ``report.json`` holds: the keys of PPO's, with the baseline in the place of the policy at the start."""
    config = session.config
    baseline, policy = read_responses(
        session.folder / RESPONSES_NAME, each=[one.each for one in questions.asked],
        prompts=len(questions.places), keys=keys, texts=True,
    )  # fmt: skip
    judge = JudgeFacts(
        "given",
        session.world.from_main(are_disjoint(reward_run_at(config.judge), teacher_of(config.model))),
        accuracy_at(session, config.judge),
    )
    report: dict[str, Any] = {
        "kind": "comparison",
        "policy": shown_name(config.model),
        "baseline": shown_name(config.baseline),
        "chosen_by": "judge" if config.reward_model is None else "reward model",
        "counts": questions.counts(),
        "temperature": config.temperature,
        "judge": vars(judge),
    }
    report |= compare_sides(
        session, [questions.record(number) for number in range(len(questions.places))], split=config.split,
        before=side_of(baseline), after=side_of(policy), candidates=answers_of(baseline, slice(1, None)),
        makers={"start": shown_name(config.baseline), "trained": shown_name(config.model)},
    )  # fmt: skip
    if config.reward_model is None:
        leave_out_score(report)
    report["warnings"] = policy_warnings(report, defused_texts=questions.defused, template=questions.without_template)
    return report


def side_of(found: Responses) -> Side:
    """The first response to each prompt."""
    return Side(answers_of(found, slice(0, 1)), [texts[0] for texts in found.texts])


def answers_of(found: Responses, some: slice) -> Answers:
    """Some of a model's responses to each prompt, as they are compared; without a reward model the judge's score is
    what one chooses by."""
    judged: Floats = found.scores[JUDGE][:, some]
    score = found.scores[SCORE][:, some] if SCORE in found.scores else judged
    return Answers(
        tokens=[responses[some] for responses in found.tokens],
        characters=found.characters[:, some],
        ended=found.ended[:, some],
        score=score,
        rewards={},
        judge=judged,
    )


def leave_out_score(report: dict[str, Any]) -> None:
    """Say the judge's figures once where it is the score, too."""
    for side in ("before", "after"):
        report[side]["score"] = None
    del report["change"]["score"]


if __name__ == "__main__":
    sys.exit(launch("evaluate_policy", EvaluatePolicyConfig, evaluate_policy, results=(REPORT_NAME,)))
