"""Import at size: peak memory and time of importing generated prompts with four responses each.

    python -m benchmarks.imports                 # 10,000 and 100,000 prompts, a process each
    python -m benchmarks.imports --prompts 5000

Each size runs in a process of its own against one throwaway Postgres, whose memory is not counted. The file has been
written before. Constant memory means that the peaks differ by little although one file is ten times the other.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESPONSES = 4
TEXT = "the a of and to in tea water leaf cup hot cold green black white sugar milk time slow pour wait drink"
WORDS = TEXT.split()


def write_file(path: Path, prompts: int, *, ranked: bool) -> None:
    """Lines of about 2 kB: a question, four responses of some 80 words, and a ranking if asked."""
    draw = random.Random(prompts)
    with path.open("w") as file:
        for number in range(prompts):
            names = [f"r{index}" for index in range(1, RESPONSES + 1)]
            record = {
                "external_id": f"generated-{number}",
                "prompt": [{"role": "user", "content": f"Question {number}: {' '.join(draw.choices(WORDS, k=20))}?"}],
                "responses": [{"id": name, "text": " ".join(draw.choices(WORDS, k=80))} for name in names],
            }
            if ranked:
                record |= {"ranking": [[name] for name in draw.sample(names, RESPONSES)], "annotator": "generated"}
            file.write(json.dumps(record) + "\n")


def import_once(path: Path, slug: str) -> None:
    """Runs in the child: imports the file twice and prints one JSON line."""
    import django

    django.setup()
    from django.core.management import call_command

    from annotate.services.imports import import_files
    from annotate.services.projects import create_project

    call_command("migrate", verbosity=0)
    project = create_project(slug=slug, name=slug)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, reports = [], []
    for _ in range(2):
        started = time.perf_counter()
        reports += import_files(project=project, files=[path], format="plackett")
        seconds.append(time.perf_counter() - started)
    assert reports[1].unchanged == reports[0].written == reports[0].read
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"before_mb": before / 1024, "peak_mb": peak / 1024, "seconds": seconds}))


def measure(prompts: int, *, ranked: bool, database_url: str) -> dict[str, float | list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated.jsonl"
        write_file(path, prompts, ranked=ranked)
        environment = os.environ | {
            "DATABASE_URL": database_url,
            "PLACKETT_HOME": folder,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
        }
        slug = f"generated-{prompts}{'-ranked' if ranked else ''}"
        child = [sys.executable, "-m", "benchmarks.imports", "--child", str(path), "--slug", slug]
        done = subprocess.run(child, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[10_000, 100_000], help="prompts per file")
    parser.add_argument("--ranked", action="store_true", help="each prompt brings a ranking")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--slug", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return import_once(arguments.child, arguments.slug)
    from tests.servers import start_test_servers

    database_url, _, stop = start_test_servers()
    try:
        print(f"{'prompts':>10} {'responses':>10} {'start MB':>9} {'peak MB':>9} {'import s':>9} {'again s':>9}")
        for prompts in arguments.prompts:
            found = measure(prompts, ranked=arguments.ranked, database_url=database_url)
            first, second = found["seconds"]  # type: ignore[misc]
            print(
                f"{prompts:>10,} {prompts * RESPONSES:>10,} {found['before_mb']:>9.0f} {found['peak_mb']:>9.0f} "
                f"{first:>9.1f} {second:>9.1f}",
                flush=True,
            )
    finally:
        stop()


if __name__ == "__main__":
    main()
