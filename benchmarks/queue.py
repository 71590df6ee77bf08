"""How the time of `POST …/next/` depends on the number of tasks.

    python -m benchmarks.queue                 # 1,000 against 1,000,000 tasks; a few minutes, about 2 GB of disk
    python -m benchmarks.queue --tasks 100000

Small and large projects stand in the same database, all at overlap 3, and are asked in turn, so that the
ratio is of one run. Timed is the service behind the endpoint (claim and content), rolled back afterwards: the request
around it costs the same at any size and would only flatter the ratio. Four callers:

- half: has ranked the first half of the tasks, while nobody else has ranked anything;
- newcomer: has ranked nothing, in that same project;
- everything: has ranked every task; two slots of each are free, none for them;
- full: a newcomer to a project where every slot is done.

Rows are written by SQL, with our triggers off while they load and without foreign keys (checking 20 million of them
takes an hour; at one call their checks cost the same at any size). The first call of `half` and
`everything` finds no cursor, because these histories were not made by calls; it is shown apart.
"""

import argparse
import statistics
import time

from benchmarks.figures import Figure, add_figures_flag, finish
from benchmarks.servers import django_on_scratch_servers

WANTED_RATIO = 1.2
#: Milliseconds of the calls of (caller, tasks).
Times = dict[tuple[str, int], list[float]]


def triggers(state: str) -> None:
    """DISABLE or ENABLE our triggers; foreign keys are dropped for good."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT conrelid::regclass::text, conname FROM pg_constraint
               WHERE contype = 'f' AND conrelid::regclass::text LIKE 'annotate_%'"""
        )
        for table, name in cursor.fetchall():
            cursor.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
        cursor.execute(
            """SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'annotate_%' AND relnamespace =
               current_schema()::regnamespace"""
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"ALTER TABLE {table} {state} TRIGGER USER")


def fill(project_id: int, tasks: int) -> None:
    """A project's prompts, two responses each, tasks and three free slots a task; ids are drawn from the sequences."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO annotate_splitgroup (project_id, key, key_sha256, split) VALUES (%s, 'g', %s, 'train')
               RETURNING id""",
            [project_id, "0" * 64],
        )
        group = cursor.fetchone()[0]
        cursor.execute(
            """INSERT INTO annotate_prompt (project_id, external_id, content_sha256, messages, split_group_id, language,
                                            tags, extra, created_at)
               SELECT %s, n::text, repeat('0', 64), '[{"role": "user", "content": "?"}]', %s, '', '[]', '{}', now()
               FROM generate_series(1, %s) n""",
            [project_id, group, tasks],
        )
        cursor.execute(
            """INSERT INTO annotate_response (prompt_id, key, text, model, settings, extra, text_sha256, created_at)
               SELECT id, 'r' || n, 'text', '', '{}', '{}', repeat('0', 64), now()
               FROM annotate_prompt, generate_series(1, 2) n WHERE project_id = %s""",
            [project_id],
        )
        cursor.execute(
            """INSERT INTO annotate_rankingtask (project_id, prompt_id, kind, state, overlap, priority, created_at)
               SELECT project_id, id, 'normal', 'open', 3, 2, now() FROM annotate_prompt WHERE project_id = %s""",
            [project_id],
        )
        cursor.execute(
            """INSERT INTO annotate_taskresponse (task_id, prompt_id, response_id)
               SELECT task.id, task.prompt_id, response.id FROM annotate_rankingtask task
               JOIN annotate_response response USING (prompt_id) WHERE task.project_id = %s""",
            [project_id],
        )
        cursor.execute(
            """INSERT INTO annotate_slot (task_id, project_id, number, state, lane, offer)
               SELECT id, project_id, n, 'free', 5, row_number() OVER (ORDER BY id, n)
               FROM annotate_rankingtask, generate_series(1, 3) n WHERE project_id = %s""",
            [project_id],
        )
        cursor.execute(
            "INSERT INTO annotate_counter (project_id, name, value) VALUES (%s, 'offer', %s)", [project_id, 3 * tasks]
        )


def rank(project_id: int, user_id: int, version_id: int, *, number: int, tasks: int) -> None:
    """Closes the slot of this number on the project's first `tasks` tasks with rankings of the user."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            f"""WITH mine AS (
                    SELECT slot.id, slot.task_id FROM annotate_slot slot
                    WHERE slot.project_id = %s AND slot.number = {number} ORDER BY slot.task_id LIMIT %s),
                ranked AS (
                    INSERT INTO annotate_ranking (project_id, task_id, annotator_id, slot_id, version_id, revision,
                        counted, source, strengths, all_bad, ratings, flags, content_sha256, presented_order, extra,
                        submitted_at)
                    SELECT %s, task_id, %s, id, %s, 1, true, 'api', '{{}}', false, '{{}}', '{{}}', repeat('0', 64),
                           '{{}}', '{{}}', now()
                    FROM mine RETURNING id, slot_id)
                UPDATE annotate_slot SET state = 'done', holder_id = %s, version_id = %s, presented_order = '{{}}',
                    current_ranking_id = ranked.id FROM ranked WHERE ranked.slot_id = annotate_slot.id""",
            [project_id, tasks, project_id, user_id, version_id, user_id, version_id],
        )


def measure(callers: dict[tuple[str, int], tuple[object, str]], calls: int) -> Times:
    """Milliseconds of each call, the callers taking turns."""
    from django.db import transaction

    from annotate.models import Project
    from annotate.selectors.leases import lease_content
    from annotate.services.queue import next_leases

    times: Times = {key: [] for key in callers}
    projects = {slug: Project.objects.get(slug=slug) for _, slug in callers.values()}
    for _ in range(calls):
        for key, (user, slug) in callers.items():
            with transaction.atomic():
                start = time.perf_counter()
                leases = [lease_content(slot) for slot in next_leases(project=projects[slug], annotator=user)]
                times[key].append(1000 * (time.perf_counter() - start))
                assert len(leases) == (0 if key[0] in {"everything", "full"} else 1), (key, leases)
                transaction.set_rollback(True)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000, help="tasks of the large project")
    parser.add_argument("--small", type=int, default=1_000, help="tasks of the small project")
    parser.add_argument("--calls", type=int, default=300, help="calls per caller and size")
    add_figures_flag(parser)
    options = parser.parse_args()
    with django_on_scratch_servers():
        found = run(options.small, options.tasks, options.calls)
    finish(found, options.figures)


def run(small: int, large: int, calls: int) -> list[Figure]:
    """Fills the projects, measures, prints, and returns what is wanted of each caller."""
    from django.db import connection

    from annotate.models import Project, User
    from annotate.services.projects import add_member, create_project
    from annotate.services.queue import next_leases, release_lease

    callers: dict[tuple[str, int], tuple[object, str]] = {}
    first_calls: dict[tuple[str, int], float] = {}
    start = time.perf_counter()
    triggers("DISABLE")
    for size in (small, large):
        # Which slot numbers are done, on how many tasks; the caller's own are number 1.
        states = {"half": ((1,), size // 2), "everything": ((1,), size), "full": ((1, 2, 3), size)}
        for name, (numbers, count) in states.items():
            slug = f"{name}-{size}"
            project: Project = create_project(slug=slug, name=slug, overlap=3)
            caller = User.objects.create_user(username=slug)
            add_member(project=project, user=caller)
            fill(project.pk, size)
            for number in numbers:
                author = User.objects.create_user(username=f"{number}-{slug}") if name == "full" else caller
                rank(project.pk, author.pk, project.versions.get().pk, number=number, tasks=count)
            callers[name, size] = (caller, slug)
        newcomer = User.objects.create_user(username=f"newcomer-{size}")
        callers["newcomer", size] = (newcomer, f"half-{size}")
    triggers("ENABLE")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    print(f"loaded in {time.perf_counter() - start:.0f} s")
    for (name, size), (user, slug) in callers.items():
        if name in {"half", "everything"}:
            begin = time.perf_counter()
            slots = next_leases(project=Project.objects.get(slug=slug), annotator=user)  # type: ignore[arg-type]
            first_calls[name, size] = 1000 * (time.perf_counter() - begin)
            if slots:
                release_lease(lease_id=slots[0].lease_id, annotator=user)  # type: ignore[arg-type]
    return report(measure(callers, calls), first_calls, small, large)


def report(times: Times, first_calls: dict[tuple[str, int], float], small: int, large: int) -> list[Figure]:
    print(f"{'caller':12}{'tasks':>10}{'median ms':>11}{'p95 ms':>9}{'ratio of medians':>19}{'first call ms':>15}")
    found = []
    for name in ("newcomer", "half", "everything", "full"):
        base = statistics.median(times[name, small])
        for size in (small, large):
            values = times[name, size]
            ratio = statistics.median(values) / base
            first = f"{first_calls[name, size]:.0f}" if (name, size) in first_calls else "–"
            print(
                f"{name:12}{size:>10,}{statistics.median(values):>11.2f}{statistics.quantiles(values, n=20)[-1]:>9.2f}"
                f"{ratio:>19.2f}{first:>15}"
            )
        found.append(Figure("next", f"{large:,} tasks to {small:,}, {name}", ratio, most=WANTED_RATIO))
    return found


if __name__ == "__main__":
    main()
