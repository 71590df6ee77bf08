"""The command `plackett`: its words and flags. What they do is in plackett/commands.py.

Exit codes: 0 done; 1 done, but some records were not taken, or a run did not succeed; 2 wrong usage, or the server said
no; 3 the server cannot be reached; 4 waited long enough.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from plackett import commands
from plackett.commands import DONE, NOT_WHOLE, REFUSED, UNREACHED, WAITED
from plackett.errors import Disconnected, PlackettError, RunFailed

__all__ = ["DONE", "NOT_WHOLE", "REFUSED", "UNREACHED", "WAITED", "main", "parser"]

#: Of exports: see docs/formats.md.
EXPORT_OPTIONS = {
    "reviewed": "yes: only rankings accepted in review",
    "split": "train, validation or test alone",
    "models": "yes or no: whether the names of models go out",
    "key": "pseudonyms of annotators under this key instead of the project's",
    "ties": "drop, both or soft: what becomes of tied pairs",
    "margin": "strength: how much better, as a number",
    "votes": "majority: one pair for what most annotators say",
    "agreement": "least share of annotators who say the same, 0 to 1",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries a command out and returns its exit code; whatever goes wrong is one line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        parser().print_help(sys.stderr)
        return REFUSED
    options = parser().parse_args(given)
    try:
        return int(options.do(options))
    except Disconnected as problem:
        return _fail(problem, UNREACHED)
    except RunFailed as problem:
        return _fail(problem, NOT_WHOLE)
    except TimeoutError as problem:
        return _fail(problem, WAITED)
    except PlackettError as problem:
        return _fail(problem, REFUSED)
    except BrokenPipeError:
        # Whoever read our output has had enough; the rest must not fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_WHOLE
    except OSError as problem:
        return _fail(f"{problem.filename}: {problem.strerror}" if problem.filename else problem, REFUSED)
    except EOFError as problem:
        return _fail(problem, REFUSED)
    except KeyboardInterrupt:
        return 130


def _fail(problem: Exception | str, code: int) -> int:
    print(f"plackett: {str(problem) or type(problem).__name__}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="plackett", description="Prompts in, preferences out, runs started.")
    whole.add_argument("--server", default="", metavar="URL", help="instead of the one of `plackett login`")
    whole.add_argument("--quiet", action="store_true", help="no progress bars")
    words = whole.add_subparsers(required=True, metavar="COMMAND")
    _add_accounts(words)
    _add_data(words)
    _add_runs(words)
    _add_machines(words)
    return whole


def _add_accounts(words: Any) -> None:
    one = words.add_parser("login", help="keep a server's address and a token, for nobody else to read")
    one.add_argument("address", metavar="SERVER", help="such as http://127.0.0.1:8000")
    one.add_argument("--token-file", metavar="FILE", help="read the token from there (- is standard input), not asked")
    one.set_defaults(do=commands.login)
    forget = words.add_parser("logout", help="forget them; the token stays good until it is revoked")
    forget.set_defaults(do=commands.logout)
    words.add_parser("whoami", help="whose token it is").set_defaults(do=commands.whoami)
    words.add_parser("projects", help="list your projects").set_defaults(do=commands.projects)


def _add_data(words: Any) -> None:
    push = words.add_parser("push", help="bring prompts and responses in; again is harmless")
    push.add_argument("project")
    push.add_argument("file", nargs="+", help="one JSON object a line, also gzipped; - is standard input")
    push.add_argument("--format", default="plackett", help="of the records (plackett)")
    push.add_argument("--overlap", type=int, help="annotators for each new task; the project's unless told")
    push.add_argument("--priority", type=int, choices=range(4), help="0 urgent, 1 high, 2 normal, 3 low")
    push.add_argument("--dry-run", action="store_true", help="only say what would become of them")
    push.set_defaults(do=commands.push)
    pull = words.add_parser("pull", help="take preferences out; again brings what is new")
    pull.add_argument("project")
    pull.add_argument("file", help="grows with each pull; its cursor stands beside it in FILE.cursor; - is "
                      "standard output, whole each time")  # fmt: skip
    pull.add_argument("--format", default="plackett", help="plackett, trl … (plackett)")
    pull.add_argument("--annotator-kinds", metavar="KIND,…", help="human, machine …; all but machine unless told")
    for name, about in EXPORT_OPTIONS.items():
        pull.add_argument(f"--{name}", metavar=name.upper(), help=about)
    pull.add_argument("--to-datasets", action="store_true", help="FILE is a folder, for datasets.load_from_disk; "
                      "whole each time; needs the package datasets")  # fmt: skip
    pull.add_argument("--restart", action="store_true", help="write the file whole, whatever stands there")
    pull.set_defaults(do=commands.pull, options=tuple(EXPORT_OPTIONS))
    freeze = words.add_parser("freeze", help="freeze a snapshot to train from; prints its number")
    freeze.add_argument("project")
    freeze.add_argument("name")
    freeze.set_defaults(do=commands.freeze)


def _add_runs(words: Any) -> None:
    run = words.add_parser("run", help="start a run; prints its number")
    run.add_argument("project")
    run.add_argument("kind", help="sft, reward, dpo, ppo …")
    run.add_argument("--snapshot", type=int, required=True, help="its number, as `freeze` printed it")
    run.add_argument("--base-model", required=True, metavar="MODEL", help="smollm2, tiny, registry:7, owner/name …")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the recipe")
    run.add_argument(
        "--input", action="append", default=[], metavar="ROLE=MODEL", help="such as reward_model=registry:7"
    )
    run.add_argument("--name", default="", help="of the run")
    run.add_argument("--queue", default="", help="kind of worker")
    run.add_argument("--wait", action="store_true", help="until it is over")
    run.set_defaults(do=commands.run, seconds=None)
    wait = words.add_parser("wait", help="wait until a run is over")
    wait.add_argument("run", type=int)
    wait.add_argument("--seconds", type=float, help="the longest to wait")
    wait.set_defaults(do=commands.wait)


def _add_machines(words: Any) -> None:
    one = words.add_parser("machines", help="list, add and remove accounts that rank by program")
    one.add_argument("project")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--add", metavar="NAME", help="make one; prints its token, this once")
    what.add_argument("--new-token", metavar="NAME", help="prints a new token; the one before stops working")
    what.add_argument("--remove", metavar="NAME", help="its token ends; its rankings stay")
    one.add_argument("--holds", type=int, metavar="N", help="with --add: tasks it may hold at once (32)")
    one.add_argument("--fills-places", action="store_true", help="with --add: instead of people, not beside them")
    one.set_defaults(do=commands.machines)
