"""Rankings as sentences in the visitor's language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotate.models import Ranking, RankingTask, Review
from annotate.pages.workbench import time_in_words
from annotate.selectors.reviews import review_of
from annotate.selectors.task_lists import Said, TaskRow
from annotate.sentences import Words, sentence_of, strengths_of


@dataclass(frozen=True, slots=True)
class Told:
    """One revision of an answer, ready to be read."""

    ranking: Ranking
    sentence: str
    strengths: str
    last: bool
    ratings: Sequence[tuple[str, str]] = ()
    order: str = ""
    time: str = ""
    review: Review | None = None


def words() -> Words:
    """The same words as on the ranking page."""
    return Words(
        all_bad=_("All bad"),
        unranked=_("{letters} unranked"),
        edited=_("with an edited version of {letter}"),
        strengths={
            1: _("{better} slightly better than {worse}"),
            2: _("{better} clearly better than {worse}"),
            3: _("{better} much better than {worse}"),
        },
    )


def tell(said: Said, *, letters: Mapping[int, str], whole: bool = False) -> Told:
    """What an annotator said; with `whole` also ratings, flags, time, and the order in which responses were shown."""
    ranking, saying = said.ranking, words()
    sentence = sentence_of(
        said.tiers, unranked=said.unranked, all_bad=ranking.all_bad, edited=said.edited, words=saying
    )
    return Told(
        ranking=ranking,
        sentence=sentence,
        strengths="; ".join(strengths_of(said.tiers, ranking.strengths, words=saying)),
        last=not hasattr(ranking, "superseded_by"),
        ratings=_ratings(ranking, letters) if whole else (),
        order=" ".join(letters[pk] for pk in ranking.presented_order if pk in letters) if whole else "",
        review=review_of(ranking),
        time=short_time(ranking.seconds) if whole and ranking.seconds is not None else "",
    )


def _ratings(ranking: Ranking, letters: Mapping[int, str]) -> list[tuple[str, str]]:
    """(letter, "Helpful 4, Harmless yes; flags: Unsafe") of each response of which something was said."""
    scales = {one["key"]: one for one in ranking.version.criteria}
    flags = {one["key"]: one["label"] for one in ranking.version.flags}
    found = []
    for pk, letter in letters.items():
        rated = ranking.ratings.get(str(pk), {})
        said = [_rating(scales.get(key), key, value) for key, value in rated.items()]
        said += [_("flag: %(name)s") % {"name": flags.get(key, key)} for key in ranking.flags.get(str(pk), [])]
        if said:
            found.append((letter, ", ".join(said)))
    return found


def _rating(scale: Mapping[str, Any] | None, key: str, value: object) -> str:
    if scale is None:
        return f"{key} {value}"
    if scale.get("kind") == "yesno":
        said = _("yes") if value else _("no")
        return f"{scale['label']}: {said}"
    return f"{scale['label']} {value}/{scale.get('high', 5)}"


def row_context(row: TaskRow) -> dict[str, Any]:
    """A line of a list of tasks: the task, what it is, and each last answer as its sentence."""
    state, words_of_state = state_of(row.task, done=row.done)
    return {
        "task": row.task,
        "beginning": row.beginning or _("This prompt was withdrawn."),
        "count": len(row.letters),
        "done": row.done,
        "flags": row.flags,
        "skips": row.skips,
        "leaks": row.leaks,
        "state": state,
        "state_words": words_of_state,
        "told": [tell(said, letters=row.letters) for said in row.said],
    }


def state_of(task: RankingTask, *, done: int) -> tuple[str, str]:
    """The colour and the word of a task's state."""
    if task.prompt.withdrawn_at is not None:
        return "bad", _("withdrawn")
    if task.state == RankingTask.State.HELD:
        return "warn", _("held")
    if task.state == RankingTask.State.CLOSED:
        return "", _("closed")
    if done >= task.overlap:
        return "good", _("done") if task.overlap else _("ranked elsewhere")
    return "now", _("open")


def short_time(seconds: float | None) -> str:
    """Such words as “48 s” or “1 min 40 s”; a dash if nobody knows."""
    return "–" if seconds is None else time_in_words(seconds)


def long_time(days: float) -> str:
    """A stretch of days in the unit in which one thinks of it: days, weeks, months."""
    if days < 14:
        count = max(1, round(days))
        return ngettext("%(count)d day", "%(count)d days", count) % {"count": count}
    if days < 60:
        count = round(days / 7)
        return ngettext("%(count)d week", "%(count)d weeks", count) % {"count": count}
    count = round(days / 30)
    return ngettext("%(count)d month", "%(count)d months", count) % {"count": count}
