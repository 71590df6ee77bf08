"""What the pages call the formats, and the fields and options of the data going in and out."""

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

IMPORTS = {
    "plackett": _("Plackett: one JSON object a line"),
    "csv": _("CSV table"),
    "parquet": _("Parquet table"),
    "oasst": _("Open-Assistant trees"),
    "hh": _("HH-RLHF pairs"),
    "ultrafeedback": _("UltraFeedback"),
    "nectar": _("Nectar"),
    "arena": _("Chatbot Arena battles"),
    "alpaca-eval": _("AlpacaEval outputs or annotations"),
    "pandalm": _("PandaLM: pairs with several annotators"),
    "label-studio": _("Label Studio: JSON export"),
    "argilla": _("Argilla records"),
}
#: What a file of the format holds and becomes, for the page of imports; the first has an example instead.
IMPORTS_EXPLAINED = {
    "csv": _("One row for each task or answer; what the columns mean is asked after the upload. So too for Parquet."),
    "oasst": _("Conversation trees as Open-Assistant published them, one a line; replies with ranks become rankings."),
    "hh": _("Pairs of whole conversations, one a line, with the keys “chosen” and “rejected”."),
    "ultrafeedback": _("Completions of several models; overall scores become a ranking, single ratings stay ratings."),
    "nectar": _("Up to nine answers with ranks."),
    "arena": _("Two conversations and which model won; each vote becomes a ranking of two."),
    "alpaca-eval": _("Outputs of several models, joined by instruction into tasks; or annotated pairs."),
    "pandalm": _("Pairs that several people labelled 0, 1 or 2; each label becomes a ranking."),
    "label-studio": _("Its JSON export with Ranker or Pairwise: tasks with their rankings, annotators and times."),
    "argilla": _("Records with a ranking question, as its SDK writes them or its server lists them."),
}
EXPORTS = {
    "plackett": _("Rankings, whole, one a line"),
    "trl": _("Pairs as texts, for TRL"),
    "trl-conversational": _("Pairs as messages, for TRL"),
    "openrlhf": _("Pairs of whole conversations, for OpenRLHF"),
    "hh": _("Pairs of whole dialogues as texts, as in HH-RLHF"),
    "kto": _("Responses called good or bad, for TRL's KTOTrainer"),
    "sft": _("The response to imitate, for TRL's SFTTrainer"),
    "ultrafeedback": _("Completions with scores, as in UltraFeedback"),
    "nectar": _("Answers with ranks, as in Nectar"),
    "arena": _("Battles of two models, as in Chatbot Arena"),
}
OPTIONS = {
    "as": (_("Written as"), ""),
    "annotator_kinds": (_("Whose rankings"), ""),
    "split": (_("Part of the data"), ""),
    "models": (_("Names of the models"), ""),
    "key": (
        _("Key for pseudonyms"),
        _("Annotators get the same pseudonyms under the same key, and unrelated ones under another. Any text."),
    ),
    "ties": (_("Ties"), ""),
    "margin": (_("Margin"), ""),
    "votes": (_("Whose pairs"), ""),
    "agreement": (
        _("Least agreement"),
        _("Only pairs of which so many of the annotators who placed both say the same."),
    ),
}
WHOSE = {
    "human,imported,example": _("people's, imported ones and examples"),
    "human,machine,imported,example": _("these and machines'"),
    "machine": _("machines' alone"),
}
#: Shares; an address may hold any other.
AGREEMENT = {
    "0": _("not looked at"),
    "0.5": _("half of them"),
    "0.66": _("two thirds of them"),
    "0.75": _("three quarters of them"),
    "1": _("all of them"),
}
VALUES = {
    ("as", "jsonl"): _("JSON lines"),
    ("as", "csv"): _("CSV"),
    ("as", "parquet"): _("Parquet"),
    ("split", ""): _("everything"),
    ("split", "train"): pgettext_lazy("split", "Train"),
    ("split", "validation"): pgettext_lazy("split", "Validation"),
    ("split", "test"): pgettext_lazy("split", "Test"),
    ("models", ""): _("as the format has it"),
    ("models", "yes"): _("with them"),
    ("models", "no"): _("without them"),
    ("ties", "drop"): _("left out"),
    ("ties", "both"): _("one line each way"),
    ("ties", "soft"): _("marked with a preference of 0.5"),
    ("margin", "none"): _("none"),
    ("margin", "strength"): _("the strength stated, else 0"),
    ("votes", "each"): _("those of each annotator"),
    ("votes", "majority"): _("those that the majority prefers"),
}
