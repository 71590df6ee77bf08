"""How many lines an export will have, told before the first line is written.

All of it follows from the shapes of the rankings: tiers are numbered from 1 without gaps, null is unranked. Long
stretches of the feed are counted ahead (services.feed_blocks); what they do not cover is counted here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from django.db.models import Q, QuerySet

from annotate.models import Change, Demonstration, FeedBlock, Project
from annotate.prepared import prepared_cursor
from annotate.selectors.records import ALL_RANKINGS, RankingFilter

Counted = Literal["rankings", "strict_pairs", "tied_pairs", "placed", "labels", "imitated"]
_MARKED = Q(kind=Change.Kind.REVISION) | Q(kind=Change.Kind.WITHDRAWAL, ranking__isnull=False)


class Shape(NamedTuple):
    """Rankings of one kind of task, weight, annotator and split, and what they hold together.

    Attributes:
        strict_pairs: pairs of a better and a worse response: Σ over rankings of Σ_{i<j} nᵢ nⱼ over tiers.
        tied_pairs: pairs of responses of one tier: Σ n (n − 1) / 2 over the tiers of all rankings.
        placed: rankings that place two responses or more.
        labels: responses called good or bad: all of a ranking where all are bad, else its first and last of several
            tiers.
        imitated: rankings with something worth imitating: a rewrite, or a best response that is not bad.
    """

    task_kind: str
    counted: bool
    annotator_kind: str
    split: str
    rankings: int
    strict_pairs: int
    tied_pairs: int
    placed: int
    labels: int
    imitated: int

    def is_wanted(self, wanted: RankingFilter) -> bool:
        return (
            (self.counted or not wanted.counted)
            and (wanted.kinds is None or self.task_kind in wanted.kinds)
            and (wanted.annotator_kinds is None or self.annotator_kind in wanted.annotator_kinds)
            and (wanted.splits is None or self.split in wanted.splits)
        )


# The stretch is read by its numbers, each ranking looked up by itself, as in record_rows.
_SHAPES = """
SELECT t.kind, r.counted, u.kind, g.split, count(*), sum((s.placed * s.placed - s.squares) / 2)::bigint,
    sum((s.squares - s.placed) / 2)::bigint, count(*) FILTER (WHERE s.placed >= 2),
    sum(CASE WHEN r.all_bad THEN s.responses WHEN s.last > 1 THEN s.ends ELSE 0 END)::bigint,
    count(*) FILTER (WHERE r.rewrite_text IS NOT NULL OR (NOT r.all_bad AND s.placed > 0))
FROM (
    SELECT ranking_id FROM annotate_change
    WHERE project_id = %(project)s AND number > %(after)s AND number <= %(last)s AND kind IN ('ranking', 'revision')
) c
CROSS JOIN LATERAL (SELECT * FROM annotate_ranking WHERE id = c.ranking_id AND withdrawn_at IS NULL OFFSET 0) r
CROSS JOIN LATERAL (SELECT kind, prompt_id FROM annotate_rankingtask WHERE id = r.task_id OFFSET 0) t
CROSS JOIN LATERAL (
    SELECT split_group_id FROM annotate_prompt WHERE id = t.prompt_id AND withdrawn_at IS NULL OFFSET 0) p
CROSS JOIN LATERAL (SELECT split FROM annotate_splitgroup WHERE id = p.split_group_id OFFSET 0) g
JOIN annotate_user u ON u.id = r.annotator_id
CROSS JOIN LATERAL (
    SELECT sum(n) FILTER (WHERE tier IS NOT NULL) AS placed, sum(n * n) FILTER (WHERE tier IS NOT NULL) AS squares,
        sum(n) AS responses, max(tier) AS last, sum(n) FILTER (WHERE tier = 1 OR tier = highest) AS ends
    FROM (
        SELECT tier, count(*) AS n, max(tier) OVER () AS highest FROM annotate_entry WHERE ranking_id = r.id
        GROUP BY tier) tiers) counted
CROSS JOIN LATERAL (
    SELECT coalesce(placed, 0) AS placed, coalesce(squares, 0) AS squares, responses, coalesce(last, 0) AS last,
        coalesce(ends, 0) AS ends) s
WHERE NOT EXISTS (
    SELECT FROM annotate_ranking later JOIN annotate_change x ON x.ranking_id = later.id
    WHERE later.supersedes_id = r.id AND x.kind = 'revision' AND x.number <= %(up_to)s)
GROUP BY 1, 2, 3, 4
"""


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a project's feed after one change, up to and with another, as it stands at that one."""

    project: Project
    after: int
    up_to: int
    wanted: RankingFilter = ALL_RANKINGS

    def count(self, *what: Counted) -> int:
        """How many of these, together, the wanted rankings hold that stand at the window's end."""
        wanted = [shape for shape in self._shapes() if shape.is_wanted(self.wanted)]
        return sum(int(getattr(shape, one)) for shape in wanted for one in what)

    def count_records(self, *, markers: bool = False) -> int:
        """How many records records_since yields."""
        found = self.count("rankings")
        if markers:
            changes = Change.objects.filter(project=self.project, number__gt=self.after, number__lte=self.up_to)
            found += changes.filter(_MARKED).count()
        return found

    def _shapes(self) -> Iterator[Shape]:
        """Those of the blocks that lie in the window, and of the stretches between them."""
        size = FeedBlock.CHANGES
        blocks = FeedBlock.objects.filter(
            project=self.project,
            number__gte=-(-self.after // size),
            number__lt=self.up_to // size,
            as_of__lte=self.up_to,
        )
        place = self.after
        for block in blocks.order_by("number"):
            if place < block.number * size:
                yield from shapes_of(self.project, after=place, last=block.number * size, up_to=self.up_to)
            yield from (Shape(*row) for row in block.shapes)
            place = (block.number + 1) * size
        if place < self.up_to:
            yield from shapes_of(self.project, after=place, last=self.up_to, up_to=self.up_to)


def shapes_of(project: Project, *, after: int, last: int, up_to: int) -> list[Shape]:
    """The shapes of the rankings written in a stretch of the feed that still stand at change `up_to`."""
    with prepared_cursor() as cursor:
        cursor.execute(_SHAPES, {"project": project.pk, "after": after, "last": last, "up_to": up_to})
        return [Shape(*row) for row in cursor.fetchall()]


def demonstrations_of(project: Project, *, splits: tuple[str, ...] | None = None) -> QuerySet[Demonstration]:
    """The demonstrations that are not withdrawn."""
    found = Demonstration.objects.filter(project=project, withdrawn_at=None, prompt__withdrawn_at=None)
    return found.filter(prompt__split_group__split__in=splits) if splits is not None else found
