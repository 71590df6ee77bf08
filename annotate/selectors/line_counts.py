"""How many lines an export will have, asked of the database before the first line is written.

All of it follows from the shape of the rankings: tiers are numbered from 1 without gaps, null is unranked.
"""

from collections.abc import Collection

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Sum

from annotate.models import Change, Demonstration, Entry, Project, User
from annotate.selectors.records import ALL_RANKINGS, RANKED, RankingFilter
from annotate.selectors.reviews import ACCEPTED, whose_review_is

_MARKED = Q(kind=Change.Kind.REVISION) | Q(kind=Change.Kind.WITHDRAWAL, ranking__isnull=False)


def count_records(
    project: Project,
    *,
    after_change: int = 0,
    up_to_change: int,
    wanted: RankingFilter = ALL_RANKINGS,
    markers: bool = False,
) -> int:
    """How many records records_since yields."""
    found = current_changes(project, after_change=after_change, up_to_change=up_to_change, wanted=wanted).count()
    if markers:
        found += _changes(project, after_change, up_to_change).filter(_MARKED).count()
    return found


def current_changes(
    project: Project, *, after_change: int = 0, up_to_change: int, wanted: RankingFilter = ALL_RANKINGS
) -> QuerySet[Change]:
    """As records_since, in SQL: the changes that wrote a wanted ranking which still stands at the window's end."""
    superseding = Change.objects.filter(
        ranking__supersedes=OuterRef("ranking"), kind=Change.Kind.REVISION, number__lte=up_to_change
    )
    found = _changes(project, after_change, up_to_change).filter(
        ~Exists(superseding),
        kind__in=RANKED,
        ranking__withdrawn_at=None,
        ranking__task__prompt__withdrawn_at=None,
    )
    if wanted.counted:
        found = found.filter(ranking__counted=True)
    if wanted.kinds is not None:
        found = found.filter(ranking__task__kind__in=wanted.kinds)
    if wanted.annotator_kinds is not None:
        found = _of_kinds(found, wanted.annotator_kinds)
    if wanted.splits is not None:
        found = found.filter(ranking__task__prompt__split_group__split__in=wanted.splits)
    if wanted.reviewed:
        found = found.filter(whose_review_is(ACCEPTED, ranking="ranking", up_to_change=up_to_change))
    return found


def _of_kinds(changes: QuerySet[Change], kinds: Collection[str]) -> QuerySet[Change]:
    """Those of these kinds of annotators. That machines are left out, as usual, costs nothing where there are none."""
    if set(kinds) >= set(User.Kind.values) - {User.Kind.MACHINE}:
        if User.Kind.MACHINE in kinds:
            return changes
        machines = list(User.objects.filter(kind=User.Kind.MACHINE).values_list("pk", flat=True))
        return changes.exclude(ranking__annotator__in=machines) if machines else changes
    return changes.filter(ranking__annotator__kind__in=kinds)


def _changes(project: Project, after: int, up_to: int) -> QuerySet[Change]:
    return Change.objects.filter(project=project, number__gt=after, number__lte=up_to)


# --- lines made of the entries of rankings ----------------------------------------------------------------------------


def _placed(changes: QuerySet[Change]) -> QuerySet[Entry]:
    return Entry.objects.filter(ranking__in=changes.values("ranking"), tier__isnull=False)


def count_strict_pairs(changes: QuerySet[Change]) -> int:
    """How many pairs of a better and a worse response the rankings hold: Σ over rankings of Σ_{i<j} nᵢ nⱼ over tiers.

    Which is (Σ n² of the placed responses of each ranking − Σ n² of the responses of each tier) / 2.
    """
    placed = _placed(changes)
    of_rankings = placed.values("ranking").annotate(n=Count("pk")).aggregate(total=Sum(F("n") * F("n")))["total"]
    of_tiers = placed.values("ranking", "tier").annotate(n=Count("pk")).aggregate(total=Sum(F("n") * F("n")))["total"]
    return ((of_rankings or 0) - (of_tiers or 0)) // 2


def count_tied_pairs(changes: QuerySet[Change]) -> int:
    """How many pairs of responses share a tier: Σ n (n − 1) / 2 over the tiers of all rankings."""
    tiers = _placed(changes).values("ranking", "tier").annotate(n=Count("pk"))
    return (tiers.aggregate(total=Sum(F("n") * (F("n") - 1)))["total"] or 0) // 2


def count_with_placed_pair(changes: QuerySet[Change]) -> int:
    """How many rankings place two responses or more."""
    return _placed(changes).values("ranking").annotate(n=Count("pk")).filter(n__gte=2).count()


def count_labels(changes: QuerySet[Change]) -> int:
    """How many responses are called good or bad: all of a ranking where all are bad, else its first and last tier."""
    all_bad = Entry.objects.filter(ranking__in=changes.filter(ranking__all_bad=True).values("ranking")).count()
    placed = _placed(changes.filter(ranking__all_bad=False))
    of_ranking = Entry.objects.filter(ranking=OuterRef("ranking"))
    first = placed.filter(Exists(of_ranking.filter(tier__gt=1)), tier=1).count()
    last = placed.filter(~Exists(of_ranking.filter(tier__gt=OuterRef("tier"))), tier__gt=1).count()
    return all_bad + first + last


def count_imitated(changes: QuerySet[Change]) -> int:
    """How many rankings have something worth imitating: a rewrite, or a best response that is not bad."""
    placed = Entry.objects.filter(ranking=OuterRef("ranking"), tier=1)
    best = Q(Exists(placed), ranking__all_bad=False)
    return changes.filter(Q(ranking__rewrite_text__isnull=False) | best).count()


def demonstrations_of(project: Project, *, splits: tuple[str, ...] | None = None) -> QuerySet[Demonstration]:
    """The demonstrations that are not withdrawn."""
    found = Demonstration.objects.filter(project=project, withdrawn_at=None, prompt__withdrawn_at=None)
    return found.filter(prompt__split_group__split__in=splits) if splits is not None else found
