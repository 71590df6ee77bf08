"""How an attempt ended, and what that means for its run: done, failed, cancelled, or to be tried again."""

from dataclasses import dataclass
from enum import Enum, auto

from training.models import Run
from training.runner.mirror import Exit
from training.services.claims import Claim
from training.services.members import member_that_left

GATHER_SECONDS = 60.0
OWN_FAILURES = (2, 3, 4)  # a recipe's exit codes after which nobody tries again by himself
NO_ROOM = 4  # a recipe's exit code when it cannot write any more; a full disk may take no exit.json
ENDED_FROM_OUTSIDE = 143  # what a recipe exits with after SIGTERM
LOCKED = "another process is at work in"  # what a recipe says that finds its folder locked
FULL_DISK = "There is no room left on the disk that holds the run's folder. Make room, then resume the run."
UNSTORED = (
    "The training is done, but its results could not be put into the artifact store: {why} They are on {host}; resume "
    "the run when the store answers: a worker there only sends them, one elsewhere goes on from the last checkpoint."
)


class Why(Enum):
    """Why an attempt ends before its trainer does."""

    CANCELLED = auto()
    WORKER_STOPS = auto()
    ALONE = auto()  # the others that were to train it, too, did not come
    MEMBER_LOST = auto()
    MEMBER_LEFT = auto()  # its worker was stopped in good order


@dataclass(frozen=True, slots=True)
class Ending:
    """How the trainer ended: its status (negative for a signal) and what it wrote, if this attempt wrote it."""

    status: int | None
    exit: Exit | None
    interrupted: Why | None
    unstored: str = ""  # why its results are not in the artifact store, where that is a bucket

    @property
    def code(self) -> int | None:
        """The recipe's own code, else the status of its process."""
        return self.exit.code if self.exit else self.status

    @property
    def manner(self) -> str:
        """The status in words."""
        if self.status is None:
            return "it never began"
        return f"signal {-self.status}" if self.status < 0 else f"exit {self.status}"


class Fate(Enum):
    """What becomes of a run whose attempt has ended."""

    DONE = auto()
    CANCELLED = auto()
    FAILED = auto()
    HANDED_ON = auto()  # back into its queue, as often as it takes
    LOST = auto()  # back into its queue, but not for ever


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known beside the ending: where the attempt was, how far it came, and its log's last line.

    `missing` is the worker of a member that was lost, "" where none was.
    """

    claim: Claim
    run: Run
    host: str
    step: int
    missing: str
    last_line: str


def fate_of(ending: Ending, about: Circumstances) -> tuple[Fate, str]:
    """What becomes of the run, and why, in words for those who watch it (none for what needs none)."""
    code = ending.code
    if code == 0 and not ending.unstored:
        return Fate.DONE, ""
    if ending.interrupted == Why.CANCELLED:
        return Fate.CANCELLED, ""
    if ending.interrupted == Why.WORKER_STOPS:
        return Fate.HANDED_ON, "Its worker was stopped; it goes on from its last checkpoint."
    if ending.interrupted == Why.ALONE:
        return (
            Fate.HANDED_ON,
            f"Not all of {about.run.nodes} workers came within {GATHER_SECONDS:.0f} s; it is tried again.",
        )
    if ending.unstored:
        return Fate.FAILED, UNSTORED.format(why=ending.unstored, host=about.host)
    if worker := _left_in_good_order(ending, about):
        return Fate.HANDED_ON, f"The worker {worker} was stopped; it goes on from its last checkpoint."
    if _is_broken(ending, about.run) or (ending.interrupted == Why.MEMBER_LOST and code == ENDED_FROM_OUTSIDE):
        who = f"The worker {about.missing}" if about.missing else "One of its processes"
        return Fate.LOST, f"{who} was lost at step {about.step}."
    if ending.exit is None and (code is None or code < 0) or code == ENDED_FROM_OUTSIDE:
        return Fate.LOST, f"The training process was ended from outside ({ending.manner})."
    if ending.exit is None and LOCKED in about.last_line:
        return Fate.LOST, "The trainer of an earlier attempt is still at work in the run's folder."
    if code == NO_ROOM:
        return Fate.FAILED, FULL_DISK
    reason = (ending.exit.reason if ending.exit else "") or about.last_line
    return Fate.FAILED, reason or f"The training process failed ({ending.manner})."


def _left_in_good_order(ending: Ending, about: Circumstances) -> str:
    """The worker of another member that was stopped, if that is why the attempt ended; else ""."""
    if about.run.nodes == 1:
        return ""
    # All processes may have agreed to stop before we looked.
    if ending.interrupted == Why.MEMBER_LEFT or ending.code == ENDED_FROM_OUTSIDE or _is_broken(ending, about.run):
        return member_that_left(about.claim)
    return ""


def _is_broken(ending: Ending, run: Run) -> bool:
    """Whether a run of several processes ended because one of them, here or elsewhere, went away without a word.

    One that fails for a reason of its own leaves word of it, which exit.json repeats: that is a failure.
    """
    if run.processes * run.nodes == 1 or ending.interrupted not in (None, Why.MEMBER_LOST):
        return False
    if ending.exit is None:
        return True
    return bool(ending.exit.content.get("peer_lost"))
