"""The set-up of a project: one form for all that decides an answer, a preview of the workbench, a review, the save."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST

from annotate.errors import Conflict, Invalid
from annotate.models import Project, ProjectVersion, Role, User
from annotate.pages.access import page, page_data, visitor
from annotate.pages.overview import rights_of
from annotate.pages.presets import PRESETS, preset_named
from annotate.pages.previews import preview_of
from annotate.pages.rule_words import Change, changes_between, guidelines_difference, rules_in_words
from annotate.pages.setup_forms import Raw, Setup, change_rows, posted_raw, posted_setup, raw_of
from annotate.pages.words import workbench_words
from annotate.selectors.projects import current_version, get_project_for, membership_of
from annotate.selectors.setup import OverlapEffect, open_leases, overlap_effect, readers
from annotate.services.overlaps import set_overlap_of_all
from annotate.services.project_rules import rules_of
from annotate.services.projects import change_project, set_archived, state_of


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request happens: who asks, the project, the rules in force."""

    request: HttpRequest
    user: User
    project: Project
    version: ProjectVersion

    @property
    def state(self) -> Raw:
        return state_of(self.project, self.version)

    @property
    def in_force(self) -> Raw:
        """Rules and settings as they are now."""
        return {**rules_of(self.version), **self.state["settings"]}


def tab_of(project: Project, user: User) -> Raw:
    """What the row of tabs needs on the set-up's pages."""
    return {"tab": "setup", **rights_of(membership_of(user=user, project=project))}


def _place(request: HttpRequest, slug: str) -> Place:
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.MANAGER)
    return Place(request, user, project, current_version(project))


@require_http_methods(["GET", "HEAD", "POST"])
@page
def setup(request: HttpRequest, slug: str) -> HttpResponse:
    """The form; and whatever its buttons ask for, of which `save` alone writes."""
    place = _place(request, slug)
    if request.method != "POST":
        return _form(place, Setup.of(place.project, place.version))
    match request.POST.get("do", "review"):
        case "review":
            return _checked(place, save=False)
        case "save":
            return _checked(place, save=True)
        case "merge":
            return _merged(place)
        case "mine":
            return _form(place, Setup(posted_raw(request.POST), seen=place.state))
        case "preset":
            return _filled(place)
        case "edit":
            return _form(place, posted_setup(request.POST, bound=False))
        case "preview":
            return _form(place, posted_setup(request.POST, bound=False), with_preview=True)
        case what:
            return _form_with_rows(place, what)


# --- the form ---------------------------------------------------------------------------------------------------------


def _form(place: Place, state: Setup, *, status: int = 200, with_preview: bool = False, **extra: Any) -> HttpResponse:
    preview: Raw | None = None
    if with_preview:
        preview = _preview(place, posted_setup(place.request.POST))
    context = {
        "project": place.project,
        "version": place.version,
        "state": state,
        "presets": PRESETS,
        "preview": preview,
        "words": workbench_words(),
        **tab_of(place.project, place.user),
        "new": "new" in place.request.GET,
        **extra,
    }
    return render(place.request, "annotate/setup.html", context, status=status)


def _form_with_rows(place: Place, what: str) -> HttpResponse:
    state = posted_setup(place.request.POST, bound=False)
    raw, focus = change_rows(state.raw, what)
    if focus is None:
        raise Invalid(_("This form is not whole; load the page again."))
    changed = Setup(raw, seen=state.seen)
    changed.put_focus(focus)
    return _form(place, changed, focus=focus)


def _filled(place: Place) -> HttpResponse:
    """The form with a ready-made set in it; guidelines that somebody wrote stay."""
    state = posted_setup(place.request.POST, bound=False)
    chosen = preset_named(place.request.POST.get("preset", ""))
    if chosen is None:
        return _form(place, state, preset_fault=_("Choose one of the ready-made sets."), status=422)
    given = chosen.filled()
    if state.raw["guidelines"].strip():
        given.pop("guidelines")
    return _form(place, Setup(state.raw | given, seen=state.seen), filled=chosen)


# --- review and save --------------------------------------------------------------------------------------------------


def _checked(place: Place, *, save: bool) -> HttpResponse:
    """The review of what was posted, or its save; else the form with what is wrong, or with what others changed."""
    state = posted_setup(place.request.POST)
    if not state.is_valid():
        return _form(place, state, status=422)
    if state.seen != place.state:
        return _stale(place, state)
    changes = changes_between(place.in_force, state.rules | state.settings)
    effect = overlap_effect(place.project, state.settings["overlap"]) if state.apply_overlap else OverlapEffect()
    if not changes and effect.nothing:
        messages.info(place.request, _("Nothing is changed, so nothing was saved."))
        return redirect("setup", place.project.slug)
    return _save(place, state) if save else _review(place, state, changes=changes, effect=effect)


def _review(place: Place, state: Setup, *, changes: list[Change], effect: OverlapEffect) -> HttpResponse:
    changed = {change.field for change in changes}
    new_rules = bool(changed & set(state.rules))
    waiting = [reader for reader in readers(place.project, place.version) if reader.read_at]
    context = {
        **tab_of(place.project, place.user),
        "project": place.project,
        "version": place.version,
        "next": place.version.number + 1 if new_rules else None,
        "changes": changes,
        "changed": changed,
        "hidden": state.hidden(),
        "leases": open_leases(place.project),
        "effect": effect,
        "apply_overlap": state.apply_overlap,
        "overlap": state.settings["overlap"],
        "readers": len(waiting),
        "difference": guidelines_difference(place.in_force, state.rules),
    }
    return render(place.request, "annotate/setup_review.html", context)


def _save(place: Place, state: Setup) -> HttpResponse:
    try:
        change_project(
            project=place.project, changed_by=place.user, rules=state.rules, seen=state.seen, **state.settings
        )
    except Conflict:
        return _stale(_place(place.request, place.project.slug), state)
    number = current_version(place.project).number
    messages.success(place.request, _saved_words(place, number))
    if state.apply_overlap:
        effect = set_overlap_of_all(project=place.project, overlap=state.settings["overlap"])
        messages.info(place.request, overlap_words(effect))
    return redirect("setup", place.project.slug)


def _saved_words(place: Place, number: int) -> str:
    if number == place.version.number:
        return _("Saved. The rules are still version %(number)d.") % {"number": number}
    held = sum(leases.tasks for leases in open_leases(place.project) if leases.version != number)
    if not held:
        return _("Saved as version %(number)d. Whoever gets a task now ranks under it.") % {"number": number}
    words = ngettext(
        "Saved as version %(number)d. %(count)d task that somebody holds is finished under the version before.",
        "Saved as version %(number)d. %(count)d tasks that people hold are finished under the version before.",
        held,
    )
    return words % {"number": number, "count": held}


def overlap_words(effect: OverlapEffect) -> str:
    """What an overlap for the tasks that exist did."""
    if effect.nothing:
        return _("The tasks that exist stay as they are.")
    if effect.more:
        words = ngettext(
            "%(count)d task got %(places)d more places.", "%(count)d tasks got %(places)d more places.", effect.more
        )
        return words % {"count": effect.more, "places": effect.added}
    words = ngettext(
        "%(count)d task lost %(places)d free places.", "%(count)d tasks lost %(places)d free places.", effect.fewer
    )
    return words % {"count": effect.fewer, "places": effect.removed}


# --- somebody else was quicker ----------------------------------------------------------------------------------------


def _began_from(place: Place, state: Setup) -> Raw:
    """Rules and settings as they were when the form was opened."""
    version = place.project.versions.filter(number=state.seen["version"]).first() or place.version
    return {**rules_of(version), **state.seen["settings"]}


def _stale(place: Place, state: Setup) -> HttpResponse:
    """Both sides' changes, and the ways to go on; what was typed is in the page."""
    base, mine, theirs = _began_from(place, state), state.rules | state.settings, place.in_force
    both = [one for one in changes_between(theirs, mine) if mine[one.field] != base[one.field] != theirs[one.field]]
    context = {
        **tab_of(place.project, place.user),
        "project": place.project,
        "version": place.version,
        "theirs": changes_between(base, theirs),
        "mine": changes_between(base, mine),
        "both": both,
        "difference": guidelines_difference(base, theirs),
        "hidden": state.hidden(),
    }
    return render(place.request, "annotate/setup_stale.html", context, status=409)


def _merged(place: Place) -> HttpResponse:
    """The form with both sides' changes; where both changed the same thing, the visitor's."""
    state = posted_setup(place.request.POST)
    state.is_valid()
    base, theirs = _began_from(place, state), place.in_force
    wanted = {name: theirs[name] if value == base[name] else value for name, value in _complete(state, theirs).items()}
    settings = {name: wanted.pop(name) for name in state.seen["settings"]}
    return _form(place, Setup(raw_of(rules=wanted, settings=settings), seen=place.state), merged=True)


def _complete(state: Setup, otherwise: Raw) -> Raw:
    return {**otherwise, **state.rules, **state.settings}


# --- preview ----------------------------------------------------------------------------------------------------------


@require_POST
@page_data
def setup_preview(request: HttpRequest, slug: str) -> HttpResponse:
    """The workbench under the rules in the posted form, as far as they are right; writes nothing."""
    place = _place(request, slug)
    state = posted_setup(request.POST)
    return JsonResponse(_preview(place, state))


def _preview(place: Place, state: Setup) -> Raw:
    sound = state.is_valid()
    rules = state.sound_rules(rules_of(place.version))
    preview = preview_of(place.project, rules=rules, number=place.version.number)
    changes = changes_between(place.in_force, _complete(state, place.in_force))
    return preview | {
        "sound": sound,
        "status": status_words(changes=len(changes), faults=len(state.faults)),
        "words": [{"name": name, "lines": lines} for name, lines in rules_in_words(rules)],
    }


def status_words(*, changes: int, faults: int) -> str:
    """How the form stands to what is in force, in a few words."""
    if faults:
        return ngettext("%(count)d thing to put right", "%(count)d things to put right", faults) % {"count": faults}
    if changes:
        return ngettext("%(count)d change, not saved", "%(count)d changes, not saved", changes) % {"count": changes}
    return _("No changes")


# --- archive ----------------------------------------------------------------------------------------------------------


@require_POST
@page
def archive(request: HttpRequest, slug: str) -> HttpResponse:
    """Closes the project, or opens it again."""
    place = _place(request, slug)
    archived = request.POST.get("archived") == "yes"
    set_archived(project=place.project, archived=archived)
    if archived:
        messages.success(request, _("Archived. Nobody is handed tasks; what was begun can be submitted."))
    else:
        messages.success(request, _("The project is open again."))
    return redirect(f"{reverse('setup', args=[place.project.slug])}#archive")
