"""`python -m webapp.stack`: what `make run` does once the virtual environment is there.

With an argument, one part alone, in place of this process, for machines and containers that run each by itself:
`python -m webapp.stack web`, `python -m webapp.stack worker default`, `python -m webapp.stack worker gpu`,
`python -m webapp.stack beat`. `python -m webapp.stack check` and then the same words ends with 0 if that part of this
machine is well: what health checks call.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from webapp.stack.config import REPOSITORY, StackConfig
from webapp.stack.supervisor import answers
from webapp.stack.supervisor import main as supervise


def main(arguments: Sequence[str]) -> int:
    """Runs the whole stack, becomes one part of it, or asks whether a part is well."""
    chosen = parser().parse_args(arguments)
    if chosen.part in {None, "servers"}:
        return supervise(servers_only=chosen.part == "servers")
    os.umask(0o077)
    config = StackConfig.from_environment()
    if chosen.part != "check":
        _become(_command(config, chosen), config)
    if chosen.checked == "web":
        return 0 if answers(f"{config.url}/readyz") else 1
    _become(config.ping_command("beat" if chosen.checked == "beat" else chosen.queue), config)


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    whole = argparse.ArgumentParser(prog="python -m webapp.stack", description="Run Plackett, or one part of it.")
    parts = whole.add_subparsers(dest="part", metavar="PART")
    _add_parts(parts, does="run")
    parts.add_parser("servers", help="run the embedded Postgres and Valkey alone, to put a backup back")
    check = parts.add_parser("check", help="ends with 0 if a part of this machine is well")
    _add_parts(check.add_subparsers(dest="checked", metavar="PART", required=True), does="check")
    return whole


def _add_parts(parts: "argparse._SubParsersAction[argparse.ArgumentParser]", *, does: str) -> None:
    parts.add_parser("web", help=f"{does} the web alone")
    worker = parts.add_parser("worker", help=f"{does} one worker alone")
    help_text = "of which queues, separated by commas: default for short jobs; gpu, gpu.large, cpu … for runs"
    worker.add_argument("queue", type=_queues, help=help_text)
    parts.add_parser("beat", help=f"{does} the clock of periodic work alone")


def _queues(names: str) -> str:
    for name in names.split(","):
        if not re.fullmatch(r"[a-z][a-z0-9._-]*", name):
            raise argparse.ArgumentTypeError(f"{name!r} is no name of a queue: small letters, digits, dots, dashes")
    if "default" in names.split(",")[1:]:
        raise argparse.ArgumentTypeError("short jobs (default) and runs need a worker each")
    return names


def _command(config: StackConfig, chosen: argparse.Namespace) -> list[str]:
    if chosen.part == "worker":
        return config.worker_command(chosen.queue)
    return config.web_command() if chosen.part == "web" else config.beat_command()


def _become(command: list[str], config: StackConfig) -> NoReturn:
    os.chdir(REPOSITORY)
    os.execve(command[0], command, config.child_environment({}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
