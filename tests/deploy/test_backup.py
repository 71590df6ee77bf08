"""Backup, loss, restore: with the commands that operators use, on a real Postgres; and what a restore refuses."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from psycopg import sql

from tests.bucket import use_bucket
from tests.deploy.files import REPOSITORY
from training.store.opening import open_store
from webapp import env
from webapp.backups.making import make_backup
from webapp.backups.manifest import MANIFEST, BackupError, Manifest, StoredFile
from webapp.backups.postgres import count_rows
from webapp.backups.restoring import restore_backup

EPOCHS = "annotate_databaseepoch"
FILES = {
    "runs/7/out/model/config.json": "{}",
    "runs/7/out/checkpoints/step-10/manifest.json": "{}",
    "runs/7/out/metrics.jsonl": '{"step": 10}\n',
    "models/mine/config.json": "{}",
}
PASSING = ("runs/7/data-1.jsonl", "runs/7/tokens-1/ids.npy", "runs/7/out/checkpoints/step-20.tmp/weights", "secret-key")


def nothing(*_: Any) -> None:
    pass


class Place:
    """A data folder and a database, and the commands run on them."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.home, self.database_url = home, database_url

    def manage(self, *arguments: str, status: int = 0) -> str:
        """Runs a management command as an operator would; returns all that it printed."""
        own = {"PATH": os.environ["PATH"], "PLACKETT_HOME": str(self.home), "DATABASE_URL": self.database_url}
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=REPOSITORY,
            env={**own, "REDIS_URL": os.environ["REDIS_URL"], "HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def rows(self) -> dict[str, tuple[int, str]]:
        """Count and hash of each table's rows."""
        found = {}
        with psycopg.connect(self.database_url) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (name,) in tables:
                asked = "SELECT count(*), md5(coalesce(string_agg(t::text, '\n' ORDER BY t::text), '')) FROM {} t"
                row = connection.execute(sql.SQL(asked).format(sql.Identifier(name))).fetchone()
                assert row is not None
                found[name] = row
        return found

    def files(self) -> dict[str, str]:
        """SHA-256 of each file that a backup is to hold."""
        return {
            path.relative_to(self.home).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in ("artifacts", "runs", "models")
            for path in (self.home / folder).rglob("*")
            if path.is_file() and path.relative_to(self.home).as_posix() not in PASSING
        }

    def lose_everything(self) -> None:
        shutil.rmtree(self.home)
        with psycopg.connect(self.database_url) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")


def write(home: Path, names: dict[str, str]) -> None:
    for name, text in names.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)


@pytest.mark.slow
def test_what_was_backed_up_comes_back_and_cursors_are_told(database_url: str, tmp_path: Path) -> None:
    place, backup = Place(tmp_path / "home", database_url), tmp_path / "backups" / "monday"
    place.manage("prepare")  # with the demo: a project, rankings, and a snapshot with its file
    write(place.home, FILES | dict.fromkeys(PASSING, "passing"))
    rows, files = place.rows(), place.files()
    exported = place.manage("export_data", "--project", "demo", "--output", str(tmp_path / "before"))
    cursor = exported.rpartition("cursor: ")[2].strip()
    assert rows["annotate_ranking"][0] > 50 and rows["annotate_snapshot"][0] == 1 and cursor
    assert len([name for name in files if name.startswith("artifacts/snapshots/")]) == 1

    told = place.manage("backup", str(backup))
    assert f"and {len(files)} files" in told
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700

    place.lose_everything()
    assert place.rows() == {}
    place.manage("restore", str(backup))
    restored = place.rows()
    assert restored.pop(EPOCHS)[0] == rows[EPOCHS][0] + 1
    assert restored == {name: row for name, row in rows.items() if name != EPOCHS}
    assert place.files() == files
    refused = place.manage("export_data", "--project", "demo", "--since", cursor, status=1)
    assert "The database was restored since this cursor was given" in refused

    # A move: the same history goes on, over whatever was in the new place.
    write(place.home, {"artifacts/snapshots/other.jsonl": "what was there before"})
    place.manage("restore", str(backup), "--wipe", "--same-history")
    assert place.rows() == rows
    assert place.files() == files
    assert "0 lines written" in place.manage("export_data", "--project", "demo", "--since", cursor)


# --- what is refused, in this process: the database is the scratch one, and nothing of Django is asked ----------------


@pytest.fixture
def small(database_url: str, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place with one table of three rows and two files."""
    place = Place(tmp_path / "home", database_url)
    write(place.home, {"artifacts/a/one": "1", "models/two": "22"})
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE things AS SELECT generate_series(1, 3) AS number")
    settings.RUNS_ROOT, settings.MODELS_ROOT = place.home / "runs", place.home / "models"
    settings.STORAGES = {
        **django_settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(place.home / "artifacts")},
        },
    }
    monkeypatch.setitem(django_settings.DATABASES, "default", env.database(database_url))
    monkeypatch.setattr("webapp.backups.restoring.start_epoch", nothing)
    return place


def make(target: Path, **options: Any) -> Manifest:
    return make_backup(target, **({"checkpoints": True, "say": nothing, "progress": nothing} | options))


def restore(source: Path, **options: Any) -> Manifest:
    given = {"wipe": False, "same_history": False, "say": nothing, "progress": nothing}
    return restore_backup(source, **(given | options))


def test_a_small_backup_and_its_restore(small: Place, tmp_path: Path) -> None:
    made = make(tmp_path / "backup")
    assert made.tables == {"things": 3}
    assert {file.path: file.size_bytes for file in made.files} == {"artifacts/a/one": 1, "models/two": 2}
    assert Manifest.read(tmp_path / "backup") == made
    small.lose_everything()
    assert restore(tmp_path / "backup") == made
    assert count_rows() == {"things": 3}
    assert (small.home / "models" / "two").read_text() == "22"


def cut_dump(backup: Path) -> None:
    with (backup / "database.dump").open("r+b") as file:
        file.truncate(100)


def change_file(backup: Path) -> None:
    (backup / "files" / "models" / "two").write_text("23")


def lose_file(backup: Path) -> None:
    (backup / "files" / "models" / "two").unlink()


def lose_manifest(backup: Path) -> None:
    (backup / MANIFEST).unlink()


def other_format(backup: Path) -> None:
    (backup / MANIFEST).write_text((backup / MANIFEST).read_text().replace("plackett-backup/1", "plackett-backup/2"))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_dump, "database.dump is damaged"),
        (change_file, "two is damaged"),
        (lose_file, "two is gone"),
        (lose_manifest, "is no backup"),
        (other_format, "is not of the format"),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    small: Place, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    make(tmp_path / "backup")
    damage(tmp_path / "backup")
    with pytest.raises(BackupError, match=told):
        restore(tmp_path / "backup", wipe=True)
    assert count_rows() == {"things": 3}
    assert (small.home / "models" / "two").read_text() == "22"


def test_a_place_that_holds_something_is_refused_unless_it_is_to_be_wiped(small: Place, tmp_path: Path) -> None:
    make(tmp_path / "backup")
    with pytest.raises(BackupError, match="database is not empty"):
        restore(tmp_path / "backup")
    with psycopg.connect(small.database_url) as connection:
        connection.execute("DROP TABLE things")
    with pytest.raises(BackupError, match="artifacts is not empty"):
        restore(tmp_path / "backup")
    write(small.home, {"artifacts/of-later": "x"})
    restore(tmp_path / "backup", wipe=True)
    assert not (small.home / "artifacts" / "of-later").exists()


def test_a_database_that_others_use_is_refused(small: Place, tmp_path: Path) -> None:
    make(tmp_path / "backup")
    with psycopg.connect(small.database_url), pytest.raises(BackupError, match="1 connections use the database"):
        restore(tmp_path / "backup", wipe=True)
    assert count_rows() == {"things": 3}


def test_what_comes_meanwhile_does_no_harm(small: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that are counted are those of the moment that is dumped; files are copied after it, never before."""
    from webapp.backups import postgres

    count, counted = postgres._count, []

    def write_first(connection: Any) -> dict[str, int]:
        if not counted:
            write(small.home, {"artifacts/a/late": "4"})
            with psycopg.connect(small.database_url) as other:
                other.execute("INSERT INTO things VALUES (4)")
        counted.append(count(connection))
        return dict(counted[-1])

    monkeypatch.setattr(postgres, "_count", write_first)
    made = make(tmp_path / "backup")
    assert made.tables == {"things": 3} and count_rows() == {"things": 4}
    assert "artifacts/a/late" in [file.path for file in made.files]
    restore(tmp_path / "backup", wipe=True)
    assert count_rows() == {"things": 3}


def test_artifacts_in_a_store_that_is_no_folder_are_left_alone(small: Place, tmp_path: Path, settings: Any) -> None:
    elsewhere = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**django_settings.STORAGES, "default": elsewhere}
    made = make(tmp_path / "backup")
    assert not made.artifacts_included and [file.path for file in made.files] == ["models/two"]
    restore(tmp_path / "backup", wipe=True)
    assert (small.home / "artifacts" / "a" / "one").read_text() == "1"


def test_what_a_backup_names_in_a_bucket_has_to_be_there(db: None, small: Place, tmp_path: Path, settings: Any) -> None:
    use_bucket(settings, tmp_path / "web")
    settings.RUNS_ROOT = small.home / "runs"
    write(small.home, {"runs/7/turn": "1", "runs/7/out/run.json": "a copy of what is in the bucket"})
    write(small.home, {"runs/6/out/model/config.json": "from before there was a bucket"})
    store = open_store()
    assert store is not None
    store.write("snapshots/ab/here", b"1234")
    made = make(tmp_path / "backup")
    assert (made.store, made.artifacts_included) == (store.address, False)
    assert [file.path for file in made.files] == ["runs/6/out/model/config.json", "models/two"]
    here, gone = StoredFile("snapshots/ab/here", 4, "0" * 64), StoredFile("runs/7-2026/files/ff", 9, "0" * 64)
    replace(made, objects=[here, gone]).write(tmp_path / "backup")

    with pytest.raises(BackupError, match=f"1 of 2 objects .* are not in {store.address} .*, {gone.path} for one"):
        restore(tmp_path / "backup", wipe=True)
    assert (small.home / "runs" / "7").is_dir(), "refused before anything was removed"
    restore(tmp_path / "backup", wipe=True, without_objects=True)
    assert not (small.home / "runs" / "7").exists()
    store.write(gone.path, b"123456789")
    restore(tmp_path / "backup", wipe=True)
    settings.STORAGES = django_settings.STORAGES | {"default": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
    with pytest.raises(BackupError, match="set PLACKETT_ARTIFACTS"):
        restore(tmp_path / "backup", wipe=True)


def test_checkpoints_can_be_left_out_and_a_folder_is_never_written_into_twice(small: Place, tmp_path: Path) -> None:
    write(small.home, FILES)
    whole, without = make(tmp_path / "whole"), make(tmp_path / "without", checkpoints=False)
    left_out = {file.path for file in whole.files} - {file.path for file in without.files}
    assert left_out == {"runs/7/out/checkpoints/step-10/manifest.json"}
    order = [file.path for file in whole.files if file.path.startswith("runs/")]
    assert order[-1] == "runs/7/out/metrics.jsonl", "after the checkpoints, so that it holds their steps"
    with pytest.raises(BackupError, match="exists already"):
        make(tmp_path / "whole")


def test_a_database_that_is_away_is_said_in_one_line(small: Place, tmp_path: Path) -> None:
    django_settings.DATABASES["default"]["HOST"] = str(tmp_path)
    with pytest.raises(BackupError, match="^Cannot reach the database: [^\n]+$"):
        make(tmp_path / "backup")
    assert not (tmp_path / "backup" / MANIFEST).exists()
