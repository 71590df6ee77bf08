"""How the states of runs and of their members are written."""

from typing import Any

from django.utils.translation import pgettext

from training.models import Run

COLOUR_OF_STATE = {
    Run.State.SUCCEEDED: "good",
    Run.State.FAILED: "bad",
    Run.State.STARTING: "now",
    Run.State.RUNNING: "now",
    Run.State.STOPPING: "warn",
}


def colour_of(run: Run) -> str:
    """A class of the stylesheet; empty for a state that is neither good nor bad."""
    return COLOUR_OF_STATE.get(Run.State(run.state), "")


def state_of_member(member: Any) -> str:
    """The word for a machine that trains a run with others, as ``members_of`` finds it."""
    if member.outcome:
        return str(member.get_outcome_display()).lower()
    if member.silent:
        return pgettext("state of a member of a run", "silent")
    return pgettext("state of a member of a run", "at work")
