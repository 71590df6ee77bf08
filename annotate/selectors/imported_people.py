"""Whose rankings came with imported data: people of other places, who have no account that anybody could log in to."""

from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from annotate.errors import NotFound
from annotate.models import Membership, Project, Ranking, User

PAGE = 20


def imported_people(project: Project, *, words: str = "") -> QuerySet[User]:
    """Whoever has rankings here and is no member, by name; `words`: only those whose name holds them."""
    made = Ranking.objects.filter(project=project, annotator=OuterRef("pk"), revision=1)
    member = Membership.objects.filter(project=project, user=OuterRef("pk"))
    found = User.objects.filter(Exists(made), ~Exists(member))
    if words:
        found = found.filter(Q(first_name__icontains=words) | Q(username__icontains=words))
    return found.order_by("username")


def page_of_imported(project: Project, *, words: str = "", after: str = "") -> tuple[list[Any], str | None]:
    """At most PAGE of them, each with `name` and `answers`, the tasks they ranked that are not withdrawn; and the user
    name to go on after, None at the end."""
    found = list(imported_people(project, words=words).filter(username__gt=after)[: PAGE + 1])
    shown: list[Any] = found[:PAGE]
    standing = Ranking.objects.filter(project=project, annotator__in=shown, withdrawn_at=None).order_by()
    answers = dict(standing.values_list("annotator").annotate(Count("task", distinct=True)))
    for one in shown:
        one.name, one.answers = name_of(one), answers.get(one.pk, 0)
    return shown, shown[-1].username if len(found) > PAGE else None


def get_imported(project: Project, user_id: int) -> User:
    """One of them.

    Raises:
        NotFound: nobody of this id ranked here, or they are a member.
    """
    found = imported_people(project).filter(pk=user_id).first()
    if found is None:
        raise NotFound(_("There is no such person."))
    return found


def name_of(person: User) -> str:
    """What the imported data calls them; of an account of another kind its user name."""
    return person.first_name if person.username.count(":") >= 2 and person.first_name else person.username
