"""The project page at a glance: figures, a forecast, who is stuck, and what waits for a manager, in words."""

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotate.models import Membership, Project, Role, User
from annotate.pages.told import long_time, row_context, short_time
from annotate.selectors.leaks import leaking_tasks, unsettled_leaks
from annotate.selectors.overview import AnnotatorRow, Overview, annotator_rows, project_overview
from annotate.selectors.projects import RANK
from annotate.selectors.task_lists import LIST, tasks_to_settle

#: Someone who joined so long ago and has done nothing may not know how to begin.
IDLE_AFTER = timedelta(days=1)


def rights_of(membership: Membership) -> dict[str, Any]:
    """What templates ask about the visitor: may they rank, review, manage, import."""
    rank = RANK[membership.role]
    manages = rank >= RANK[Role.MANAGER]
    return {
        "membership": membership,
        "may_rank": rank >= RANK[Role.ANNOTATOR],
        "may_review": rank >= RANK[Role.REVIEWER],
        "manages": manages,
        "may_import": manages or membership.engineer,
    }


def overview_context(project: Project) -> dict[str, Any]:
    """What every member sees: how far the project is."""
    overview, now = project_overview(project), timezone.now()
    return {"overview": overview, "forecast": forecast(overview, now=now)}


def manager_context(project: Project, overview: Overview) -> dict[str, Any]:
    """What managers see besides: people, what is to be settled, and whether the queue runs dry."""
    now, lists = timezone.now(), tasks_to_settle(project)
    leaking = leaking_tasks(project, limit=LIST)
    rows = annotator_rows(project)
    people = [_person(row, now=now) for row in rows if row.membership.user.kind != User.Kind.MACHINE]
    return {
        "machines": [row for row in rows if row.membership.user.kind == User.Kind.MACHINE],
        "dry": dry_notice(overview, now=now),
        "people": people,
        "stuck": [one for one in people if one["stuck"]],
        "held": [row_context(row) for row in lists.held],
        "held_count": lists.held_count,
        "flagged": [row_context(row) for row in lists.flagged],
        "flagged_count": lists.flagged_count,
        "leaking": leaking,
        "leaking_count": len(leaking) if len(leaking) < LIST else unsettled_leaks(project).count(),
    }


def forecast(overview: Overview, *, now: datetime) -> str:
    """When everything will be done, in words; empty without a pace or a rest."""
    days = overview.days_left(now)
    if days is None:
        return ""
    if days < 1:
        return _("At the pace of the last 7 days: less than a day.")
    return _("At the pace of the last 7 days: about %(time)s.") % {"time": long_time(days)}


def dry_notice(overview: Overview, *, now: datetime) -> str:
    """Says when people are about to run out of work; empty otherwise."""
    if overview.wanted and not overview.free:
        if overview.leased:
            return ngettext(
                "The queue is empty: nothing is left to hand out, and %(count)d task is being ranked.",
                "The queue is empty: nothing is left to hand out, and %(count)d tasks are being ranked.",
                overview.leased,
            ) % {"count": overview.leased}
        return _("The queue is empty: nothing is left to hand out.")
    if not overview.nearly_dry(now):
        return ""
    return ngettext(
        "The queue is nearly dry: %(free)s rankings can still be handed out, and %(count)d person was at work in the "
        "last 7 days.",
        "The queue is nearly dry: %(free)s rankings can still be handed out, and %(count)d people were at work in the "
        "last 7 days.",
        overview.active,
    ) % {"free": overview.free, "count": overview.active}


def _person(row: AnnotatorRow, *, now: datetime) -> dict[str, Any]:
    return {
        "row": row,
        "member": row.membership,
        "user": row.membership.user,
        "median": short_time(row.median_seconds),
        "stuck": _stuck(row, now=now),
        "leases": [lease.task for lease in row.leases],
    }


def _stuck(row: AnnotatorRow, *, now: datetime) -> list[str]:
    """Why a manager might ask this person how it goes; empty if there is no reason."""
    found = []
    lease = row.quiet_lease(now)
    if lease is not None and lease.over:
        found.append(
            _("Left task %(task)d %(time)s ago; it goes back to the queue when someone asks for work.")
            % {"task": lease.task, "time": timesince(lease.seen, now, depth=1)}
        )
    elif lease is not None:
        found.append(
            _("Holds task %(task)d, without a sign for %(time)s.")
            % {"task": lease.task, "time": timesince(lease.seen, now, depth=1)}
        )
    if row.skips_much:
        looked_at = row.recent_skips + row.recent_done
        found.append(
            _("Skipped %(skips)d of the %(count)d tasks of the last 7 days.")
            % {"skips": row.recent_skips, "count": looked_at}
        )
    waits = now - row.membership.created_at
    if not row.done and not row.skips and not row.leases and waits >= IDLE_AFTER:
        found.append(_("Joined %(time)s ago and has not begun.") % {"time": timesince(now - waits, now, depth=1)})
    return found
