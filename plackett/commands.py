"""What each word of the command `plackett` does, and what it says about it.

Standard output has what a script would want (a number, a token, lines); what is for people goes to standard error.
"""

import argparse
import contextlib
import getpass
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from plackett import login as kept
from plackett.client import Client, Pushed
from plackett.errors import PlackettError
from plackett.saved import pull_to_file

DONE, NOT_WHOLE, REFUSED, UNREACHED, WAITED = 0, 1, 2, 3, 4
SHOWN_ERRORS = 20
#: Of tqdm: before it is known how much there is, there is no bar to show.
WITH_TOTAL = "{desc} {percentage:3.0f}% {bar} {n:,}/{total:,}{unit} {elapsed}<{remaining}"
COUNTING = "{desc} {n:,}{unit} {elapsed}"
WAITING = "{desc} {elapsed}"


def _client(options: argparse.Namespace) -> Client:
    return Client(*kept.known(options.server))


@contextlib.contextmanager
def _bar(options: argparse.Namespace, desc: str, unit: str) -> Iterator["tqdm[Any]"]:
    """A progress bar on standard error, gone when it is over: the line that is printed then says what happened."""
    with tqdm(
        desc=desc,
        unit=unit,
        bar_format=COUNTING,
        disable=options.quiet or not sys.stderr.isatty(),
        dynamic_ncols=True,
        leave=False,
        ascii="─━" if (sys.stderr.encoding or "").lower().startswith("utf") else True,
    ) as bar:
        yield bar


def _expect(bar: "tqdm[Any]", total: int | None) -> None:
    """Shows a bar from the moment on at which it is known how much there is."""
    if total:
        bar.total, bar.bar_format = total, WITH_TOTAL


def _say(text: str) -> None:
    print(text, file=sys.stderr)


# --- accounts ---------------------------------------------------------------------------------------------------------


def login(options: argparse.Namespace) -> int:
    """Tries a token and keeps it."""
    address = options.address.rstrip("/")
    if "://" not in address:
        raise PlackettError(f"Write the whole address: http://{address}, or https://{address}.")
    token = _token(options.token_file).strip()
    if not token.isascii() or not token.isprintable() or not token:
        raise PlackettError("This is no token: it begins with pk_.")
    with Client(address, token, attempts=1) as client:
        who = client.me()
    path = kept.keep(address, token)
    print(f"Logged in as {who['username']}; the token is kept in {path}.")
    _say(f"Its scopes are {', '.join(who['scopes'] or [])}.")
    return DONE


def _token(file: str | None) -> str:
    if file is None:
        return getpass.getpass("Token: ")
    return sys.stdin.readline() if file == "-" else Path(file).read_text()


def logout(_options: argparse.Namespace) -> int:
    """Forgets the token."""
    print("Forgotten." if kept.forget() else "There was nothing to forget.")
    return DONE


def whoami(options: argparse.Namespace) -> int:
    """Whose token it is, and what it may be used for."""
    with _client(options) as client:
        me = client.me()
    print(me["username"])
    _say(f"At {client.server}, with the scopes {', '.join(me['scopes'] or [])}.")
    return DONE


def projects(options: argparse.Namespace) -> int:
    """A line for each project."""
    with _client(options) as client:
        for project in client.projects():
            print(f"{project['slug']}\t{project['name']}")
    return DONE


# --- data -------------------------------------------------------------------------------------------------------------


def push(options: argparse.Namespace) -> int:
    """Sends files of records."""
    code = DONE
    with _client(options) as client:
        for name in options.file:
            with (
                contextlib.nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file,
                _bar(options, f"Sending {name}", " records") as bar,
            ):
                pushed = client.push_prompts(
                    options.project,
                    file,
                    format=options.format,
                    overlap=options.overlap,
                    priority=options.priority,
                    dry_run=options.dry_run,
                    progress=bar.update,
                )
            _tell(pushed, name, dry_run=options.dry_run)
            code = code if pushed.whole else NOT_WHOLE
    return code


def _tell(pushed: Pushed, name: str, *, dry_run: bool) -> None:
    for error in pushed.errors[:SHOWN_ERRORS]:
        _say(f"{name}, line {error.get('line', '?')}: {error.get('reason', error)}")
    if (more := len(pushed.errors) - SHOWN_ERRORS) > 0:
        _say(f"… and {more} more.")
    counts = {what: count for what, count in pushed.counts.items() if count or what in ("read", "written")}
    told = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())
    print(f"{name}: {told}" + (". This was a trial: nothing has changed." if dry_run else ""))


def pull(options: argparse.Namespace) -> int:
    """Brings what is new into a file, or all of it to standard output or into a folder of `datasets`."""
    if options.to_datasets:
        return _pull_to_datasets(options)
    chosen = _export_options(options)
    with _client(options) as client, _bar(options, "Pulling", " lines") as bar:

        def progress(lines: int, count: int) -> None:
            if lines == 1:
                _expect(bar, count)
            bar.update()

        if options.file == "-":
            with client.export(
                options.project, format=options.format, annotator_kinds=options.annotator_kinds, **chosen
            ) as export:
                for number, line in enumerate(export.lines, start=1):
                    sys.stdout.buffer.write(line)
                    progress(number, export.count)
            sys.stdout.buffer.flush()
            return DONE
        lines = pull_to_file(
            client,
            options.project,
            Path(options.file),
            format=options.format,
            annotator_kinds=options.annotator_kinds,
            options=chosen,
            restart=options.restart,
            progress=progress,
        )
    print(f"{lines:,} new lines in {options.file}.")
    return DONE


def _export_options(options: argparse.Namespace) -> dict[str, str]:
    return {name: value for name in options.options if (value := getattr(options, name)) is not None}


def _pull_to_datasets(options: argparse.Namespace) -> int:
    """By way of Parquet, which says its columns' types, so that nothing has to fit into memory."""
    folder = Path(options.file)
    if options.file == "-" or (folder.exists() and not options.restart):
        raise PlackettError("Name a folder that does not exist, or say --restart to write it anew.")
    try:
        import datasets  # heavy, and not everybody's
    except ModuleNotFoundError:
        raise PlackettError("The package datasets is missing: pip install datasets") from None
    with tempfile.TemporaryDirectory(prefix="plackett-") as scratch:
        path = Path(scratch) / "export.parquet"
        with _client(options) as client, _bar(options, "Pulling", " bytes") as bar, open(path, "wb") as file:
            asked = {"annotator_kinds": options.annotator_kinds} | _export_options(options)
            client.download_parquet(options.project, file, format=options.format, progress=bar.update, **asked)
        datasets.disable_progress_bars()
        found = datasets.Dataset.from_parquet(str(path), cache_dir=scratch)
        found.save_to_disk(str(folder))
    print(f"{len(found):,} rows in {folder}: datasets.load_from_disk({str(folder)!r})")
    return DONE


def freeze(options: argparse.Namespace) -> int:
    """Freezes a snapshot and prints its number."""
    with _client(options) as client:
        snapshot = client.freeze(options.project, options.name)
    _say(f"Froze {snapshot['counts']['rankings']:,} rankings as {snapshot['name']!r}, and its number is")
    print(snapshot["snapshot"])
    return DONE


# --- runs -------------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Starts a run, prints its number, and waits for it if asked to."""
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
        _say(f"Started; it can be watched at {client.server}/runs/{started['id']}/, and its number is")
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


def wait(options: argparse.Namespace) -> int:
    """Waits until a run is over."""
    with _client(options) as client:
        return _watch(client, options.run, options)


def _watch(client: Client, run: int, options: argparse.Namespace) -> int:
    with _bar(options, f"Run {run}", " steps") as bar:
        bar.bar_format = WAITING

        def progress(now: dict[str, Any]) -> None:
            _expect(bar, now.get("total_steps"))
            bar.set_description_str(f"Run {run} is {now['state']}", refresh=False)
            bar.update((now.get("step") or 0) - bar.n)
            bar.refresh()

        try:
            ended = client.wait_for_run(run, seconds=options.seconds, progress=progress)
        except KeyboardInterrupt:
            bar.close()
            _say(f"Run {run} goes on without you; `plackett wait {run}` waits for it again.")
            raise
    made = f" and made model {ended['model']}" if ended.get("model") else ""
    print(f"Run {run} {ended['state']}{made}.")
    return DONE


# --- machines ---------------------------------------------------------------------------------------------------------


def machines(options: argparse.Namespace) -> int:
    """Lists the machines of a project, or does something to one of them."""
    with _client(options) as client:
        if options.add:
            chosen = {"open_lease_limit": options.holds} if options.holds is not None else {}
            made = client.add_machine(options.project, options.add, fills_places=options.fills_places, **chosen)
            _say(f"The token of {made['username']}, told only now:")
            print(made["token"])
        elif options.new_token:
            found = _machine(client, options.project, options.new_token)
            print(client.renew_machine_token(options.project, found["id"])["token"])
        elif options.remove:
            found = _machine(client, options.project, options.remove)
            client.remove_machine(options.project, found["id"])
            print(f"{found['username']} may do nothing any more; its {found['rankings']:,} rankings stay.")
        else:
            for one in client.machines(options.project):
                where = "in people's places" if one["fills_places"] else "beside people"
                state = "removed" if one["deactivated_at"] else where
                print(f"{one['username']}\t{one['rankings']}\t{state}")
    return DONE


def _machine(client: Client, project: str, name: str) -> dict[str, Any]:
    """The machine that is called so, with or without the project before its name."""
    for one in client.machines(project):
        if one["username"] in (name, f"{project}.{name}"):
            return one
    raise PlackettError(f"The project {project} has no machine {name}; `plackett machines {project}` lists them.")
