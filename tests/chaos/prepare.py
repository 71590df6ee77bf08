"""Fills a fresh stack: a project with a snapshot, and the token of someone who may start runs in it.

Run as a process of its own with the stack's PLACKETT_HOME: whoever asks (a test, `python -m tests.chaos`) has another
database, or none. Prints one JSON line.
"""

import json
import os

import django


def main() -> None:
    """Writes the rows and prints where they are."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"
    django.setup()
    from annotate.services.tokens import create_token
    from tests.annotate.factories import make_project, make_user
    from tests.training.django.helpers import make_snapshot
    from tests.training.snapshots import records

    project = make_project("chaos")
    snapshot = make_snapshot(project, records(train=40, validation=8))
    engineer = make_user("chaos", is_superuser=True)
    _, token = create_token(user=engineer, name="chaos", scopes=["read", "train"], expires_at=None)
    print(json.dumps({"project": project.slug, "snapshot": snapshot.pk, "token": token}))


if __name__ == "__main__":
    main()
