"""What the report of a sampling run says, in words and a table.

Standard library only: pages import this without loading torch.
"""

from collections.abc import Mapping
from typing import Any

from training.core.policy_words import interval_note
from training.core.report_words import Figure, Table
from training.core.wording import Wording

Report = Mapping[str, Any]


def sampling_figures(report: Report, words: Wording) -> list[Figure]:
    """How many responses there are, and of each model what it scored, or how long its responses are."""
    gettext, models = words.gettext, report.get("models") or ()
    found = [
        Figure(
            gettext("responses"),
            words.count(sum(model["responses"] for model in models)),
            gettext("to %(prompts)s prompts") % {"prompts": words.count(report["counts"]["used"])},
        )
    ]
    for model in models:
        if (score := model.get("score")) is not None:
            name = gettext("score of %(model)s") % {"model": model["name"]}
            found.append(Figure(name, words.figure(score["value"]), interval_note(score, words, words.figure)))
        else:
            name = gettext("tokens a response of %(model)s") % {"model": model["name"]}
            found.append(Figure(name, words.figure(model["length_mean"]["value"])))
    return found


def sampling_table(report: Report, words: Wording) -> Table:
    """A row a model."""
    gettext = words.gettext
    rows = tuple(
        (
            model["name"],
            words.count(model["responses"]),
            words.interval(model["length_mean"], words.figure),
            words.interval(model["ended"]),
            words.interval(model.get("score"), words.figure),
            words.interval(model.get("win_rate")),
            *(words.percent(model[f"distinct_{n}"]) for n in (1, 2, 3)),
            words.interval(model["repetition"]),
        )
        for model in report.get("models") or ()
    )
    head = (
        gettext("model"), gettext("responses"), gettext("tokens a response"), gettext("ended by itself"),
        gettext("score"), gettext("wins against the first"), gettext("distinct tokens"),
        gettext("distinct pairs of tokens"), gettext("distinct triples of tokens"), gettext("repeated in a response"),
    )  # fmt: skip
    note = gettext(
        "With 95 % intervals over conversations. Scores and wins are the reward model's word, not people's. The more "
        "text, the fewer distinct runs of tokens; repeated are runs of four."
    )
    return Table(gettext("By model"), note, head, rows)
