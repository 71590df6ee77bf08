"""What reviewers do with others' rankings: accept them, or give them back with a note."""

from django.db import transaction
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Forbidden, Invalid
from annotate.models import Counter, Ranking, Review, User
from annotate.services.counters import draw

MAX_NOTE_CHARACTERS = 2_000


@transaction.atomic
def review_ranking(*, ranking: Ranking, reviewer: User, verdict: str, note: str = "") -> Review:
    """Writes a reviewer's verdict, which holds until the next one; a revision starts without any.

    Locks the ranking, so that it is neither revised nor withdrawn at the same moment, and last the project's change
    counter: exports and snapshots know what held when.

    Raises:
        Forbidden: the ranking is the reviewer's own.
        Invalid: an unknown verdict, a note over 2,000 characters, or one given back without a word.
        Conflict: it was withdrawn (`withdrawn`), or a later revision exists (`superseded`, `extra` names it).
    """
    note = note.strip()
    if ranking.annotator_id == reviewer.pk:
        raise Forbidden(_("Nobody reviews a ranking of their own."))
    if verdict not in Review.Verdict.values:
        raise Invalid(_("Accept it or give it back."), fields={"verdict": ", ".join(Review.Verdict.values)})
    if verdict == Review.Verdict.RETURNED and not note:
        raise Invalid(_("Say in a note what should be looked at again."), fields={"note": _("Needed to give it back.")})
    if len(note) > MAX_NOTE_CHARACTERS:
        words = _("At most %(limit)d characters.") % {"limit": MAX_NOTE_CHARACTERS}
        raise Invalid(words, fields={"note": words})
    now = Ranking.objects.select_for_update(of=("self",)).get(pk=ranking.pk)
    if now.withdrawn_at is not None:
        raise Conflict(_("This ranking was withdrawn."), code="withdrawn")
    later = Ranking.objects.filter(supersedes=now).values_list("pk", flat=True).first()
    if later is not None:
        message = _("It was revised meanwhile; look at the later revision.")
        raise Conflict(message, code="superseded", extra={"ranking": str(later)})
    change = draw(project=ranking.project, name=Counter.Name.CHANGE)
    review = Review.objects.create(ranking=ranking, reviewer=reviewer, verdict=verdict, note=note, change=change)
    review.refresh_from_db(fields=["created_at"])
    return review
