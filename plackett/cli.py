"""The command `plackett`.

Exit codes: 0 done; 1 done, but some records were not taken, or a run did not succeed; 2 wrong usage, or the server said
no; 3 the server cannot be reached; 4 waited long enough.
"""

import argparse
import contextlib
import getpass
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from plackett import login
from plackett.client import Client, Pushed
from plackett.errors import Disconnected, PlackettError, RunFailed
from plackett.saved import pull_to_file

DONE, NOT_WHOLE, REFUSED, UNREACHED, WAITED = 0, 1, 2, 3, 4
SHOWN_ERRORS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries a command out and returns its exit code; whatever goes wrong is one line on standard error."""
    options = parser().parse_args(arguments)
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
    except (OSError, EOFError) as problem:
        return _fail(problem, REFUSED)
    except KeyboardInterrupt:
        return 130


def _fail(problem: Exception, code: int) -> int:
    print(f"plackett: {str(problem) or type(problem).__name__}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="plackett", description="Prompts in, preferences out, runs started.")
    whole.add_argument("--server", default="", metavar="URL", help="Instead of the one of `plackett login`.")
    whole.add_argument("--quiet", action="store_true", help="No progress bars.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    _add_accounts(commands)
    _add_data(commands)
    _add_runs(commands)
    return whole


def _add_accounts(commands: Any) -> None:
    one = commands.add_parser("login", help="keep a server's address and a token, for nobody else to read")
    one.add_argument("address", metavar="SERVER", help="such as http://127.0.0.1:8000")
    one.add_argument("--token-file", metavar="FILE", help="read the token from there (- is standard input), not asked")
    one.set_defaults(do=_login)
    commands.add_parser("logout", help="forget them; the token stays good until it is revoked").set_defaults(do=_logout)
    commands.add_parser("whoami", help="whose token it is").set_defaults(do=_whoami)
    commands.add_parser("projects", help="list your projects").set_defaults(do=_projects)


def _add_data(commands: Any) -> None:
    push = commands.add_parser("push", help="bring prompts and responses in; again is harmless")
    push.add_argument("project")
    push.add_argument("file", nargs="+", help="one JSON object a line, also gzipped; - is standard input")
    push.add_argument("--format", default="plackett", help="of the records (plackett)")
    push.add_argument("--overlap", type=int, help="annotators for each new task; the project's unless told")
    push.add_argument("--priority", type=int, choices=range(4), help="0 urgent, 1 high, 2 normal, 3 low")
    push.add_argument("--dry-run", action="store_true", help="only say what would become of them")
    push.set_defaults(do=_push)
    pull = commands.add_parser("pull", help="take preferences out; again brings what is new")
    pull.add_argument("project")
    pull.add_argument("file", help="grows with each pull; its cursor stands beside it in FILE.cursor; - is "
                      "standard output, whole each time")  # fmt: skip
    pull.add_argument("--format", default="plackett", help="plackett, trl … (plackett)")
    pull.add_argument("--annotator-kinds", metavar="KIND,…", help="human, machine …; all but machine unless told")
    pull.add_argument("--restart", action="store_true", help="write the file whole, whatever stands there")
    pull.set_defaults(do=_pull)
    freeze = commands.add_parser("freeze", help="freeze a snapshot to train from; prints its number")
    freeze.add_argument("project")
    freeze.add_argument("name")
    freeze.set_defaults(do=_freeze)


def _add_runs(commands: Any) -> None:
    run = commands.add_parser("run", help="start a run; prints its number")
    run.add_argument("project")
    run.add_argument("kind", help="sft, reward, dpo, ppo …")
    run.add_argument("--snapshot", type=int, required=True)
    run.add_argument("--base-model", required=True, metavar="MODEL")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the recipe")
    run.add_argument(
        "--input", action="append", default=[], metavar="ROLE=MODEL", help="such as reward_model=registry:7"
    )
    run.add_argument("--name", default="")
    run.add_argument("--queue", default="")
    run.add_argument("--wait", action="store_true", help="until it is over")
    run.set_defaults(do=_run, seconds=None)
    wait = commands.add_parser("wait", help="wait until a run is over")
    wait.add_argument("run", type=int)
    wait.add_argument("--seconds", type=float, help="the longest to wait")
    wait.set_defaults(do=_wait)


# --- accounts ---------------------------------------------------------------------------------------------------------


def _login(options: argparse.Namespace) -> int:
    address = options.address.rstrip("/")
    token = _token(options.token_file).strip()
    if not token.isascii() or not token.isprintable() or not token:
        raise PlackettError("This is no token: it begins with pk_.")
    with Client(address, token, attempts=1) as client:
        who = client.me()
    path = login.keep(address, token)
    print(f"Logged in as {who['username']}; the token is kept in {path}.")
    return DONE


def _token(file: str | None) -> str:
    if file is None:
        return getpass.getpass("Token: ")
    return sys.stdin.readline() if file == "-" else Path(file).read_text()


def _logout(_options: argparse.Namespace) -> int:
    print("Forgotten." if login.forget() else "There was nothing to forget.")
    return DONE


def _whoami(options: argparse.Namespace) -> int:
    with _client(options) as client:
        print(client.me()["username"])
    return DONE


def _projects(options: argparse.Namespace) -> int:
    with _client(options) as client:
        for project in client.projects():
            print(f"{project['slug']}\t{project['name']}")
    return DONE


# --- data -------------------------------------------------------------------------------------------------------------


def _push(options: argparse.Namespace) -> int:
    code = DONE
    with _client(options) as client, _bar(options, desc="Sending", unit=" records") as bar:
        for name in options.file:
            with contextlib.nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
                pushed = client.push_prompts(
                    options.project,
                    file,
                    format=options.format,
                    overlap=options.overlap,
                    priority=options.priority,
                    dry_run=options.dry_run,
                    progress=bar.update,
                )
            _tell(pushed, name)
            code = code if pushed.whole else NOT_WHOLE
    return code


def _tell(pushed: Pushed, name: str) -> None:
    for error in pushed.errors[:SHOWN_ERRORS]:
        print(f"{name}, line {error.get('line', '?')}: {error.get('reason', error)}", file=sys.stderr)
    if (more := len(pushed.errors) - SHOWN_ERRORS) > 0:
        print(f"… and {more} more.", file=sys.stderr)
    print(f"{name}: " + ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in pushed.counts.items()))


def _pull(options: argparse.Namespace) -> int:
    with _client(options) as client, _bar(options, desc="Pulling", unit=" lines") as bar:
        if options.file == "-":
            asked = {"format": options.format, "annotator_kinds": options.annotator_kinds}
            with client.export(options.project, **asked) as export:
                bar.total = export.count
                for line in export.lines:
                    sys.stdout.buffer.write(line)
                    bar.update()
            sys.stdout.buffer.flush()
            return DONE

        def progress(_lines: int, count: int) -> None:
            bar.total = count
            bar.update()

        path = Path(options.file)
        chosen = {"format": options.format, "annotator_kinds": options.annotator_kinds, "restart": options.restart}
        lines = pull_to_file(client, options.project, path, **chosen, progress=progress)
    print(f"{lines:,} new lines in {path}.")
    return DONE


def _freeze(options: argparse.Namespace) -> int:
    with _client(options) as client:
        snapshot = client.freeze(options.project, options.name)
    print(snapshot["snapshot"])
    return DONE


# --- runs -------------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    chosen: dict[str, Any] = {name: value for name in ("name", "queue") if (value := getattr(options, name))}
    chosen |= dict(_pair(one) for one in options.input)
    config = {name.replace("-", "_"): _value(value) for name, value in map(_pair, options.set)}
    with _client(options) as client:
        started = client.start_run(
            options.project,
            options.kind,
            snapshot=options.snapshot,
            base_model=options.base_model,
            config=config,
            **chosen,
        )
        print(started["id"], flush=True)
        return _watch(client, started["id"], options) if options.wait else DONE


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise PlackettError(f"{text!r} is no NAME=VALUE.")
    return name, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _wait(options: argparse.Namespace) -> int:
    with _client(options) as client:
        return _watch(client, options.run, options)


def _watch(client: Client, run: int, options: argparse.Namespace) -> int:
    with _bar(options, desc=f"Run {run}", unit=" steps") as bar:

        def progress(now: dict[str, Any]) -> None:
            bar.total = now.get("total_steps") or bar.total
            bar.set_description_str(f"Run {run} {now['state']}", refresh=False)
            bar.update((now.get("step") or 0) - bar.n)

        ended = client.wait_for_run(run, seconds=options.seconds, progress=progress)
    print(f"Run {run} {ended['state']}.")
    return DONE


def _client(options: argparse.Namespace) -> Client:
    return Client(*login.known(options.server))


def _bar(options: argparse.Namespace, **shown: Any) -> "tqdm[Any]":
    return tqdm(**shown, disable=options.quiet or not sys.stderr.isatty(), unit_scale=True)
