"""`python -m webapp.stack`: what `make run` does once the virtual environment is there.

With an argument, one part alone, in place of this process, for machines and containers that run each by itself:
`python -m webapp.stack web`, `python -m webapp.stack worker default`, `python -m webapp.stack worker gpu`.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from webapp.stack.config import REPOSITORY, StackConfig
from webapp.stack.supervisor import main as supervise


def main(arguments: Sequence[str]) -> int:
    """Runs the whole stack, or becomes one part of it."""
    parser = argparse.ArgumentParser(prog="python -m webapp.stack", description="Run Plackett, or one part of it.")
    parts = parser.add_subparsers(dest="part", metavar="PART")
    parts.add_parser("web", help="the web alone")
    parts.add_parser("worker", help="one worker alone").add_argument("queue", choices=["default", "gpu"])
    chosen = parser.parse_args(arguments)
    if chosen.part is None:
        return supervise()
    config = StackConfig.from_environment()
    command = config.web_command() if chosen.part == "web" else config.worker_command(chosen.queue)
    os.umask(0o077)
    os.chdir(REPOSITORY)
    os.execve(command[0], command, config.child_environment({}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
