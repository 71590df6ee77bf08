"""The message catalogues of the interface, compiled by Babel: `python -m webapp.catalogues`.

The .po files are in git, the .mo files that Django reads are not: whatever starts Plackett makes them where they are
missing or old. Needs no Django, so that it can run before the settings are read.
"""

import os
import tempfile
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALES = Path(__file__).resolve().parent / "locale"


def compile_catalogues(folder: Path = LOCALES) -> list[Path]:
    """Makes the .mo file of each .po file that changed since; returns those it made.

    A .mo file carries the time of the .po file it was made from, so an older .po file counts as changed too. Written by
    rename: processes that do this at once do not see half a file. Where nothing may be written, as in an image, a .mo
    file that is there is taken as it is.

    Raises:
        OSError: there is none, and the folder cannot be written.
    """
    changed = [source for source in sorted(folder.glob("*/LC_MESSAGES/*.po")) if not _is_current(source)]
    return [_compile(source) for source in changed]


def _is_current(source: Path) -> bool:
    target = source.with_suffix(".mo")
    if not target.exists():
        return False
    return target.stat().st_mtime_ns == source.stat().st_mtime_ns or not os.access(target.parent, os.W_OK)


def _compile(source: Path) -> Path:
    target = source.with_suffix(".mo")
    status = source.stat()
    with source.open("rb") as lines:
        catalogue = read_po(lines, locale=source.parent.parent.name, domain=source.stem)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as new:
        write_mo(new, catalogue)
    os.utime(new.name, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.chmod(new.name, 0o644)
    os.replace(new.name, target)
    return target


if __name__ == "__main__":
    for made in compile_catalogues():
        print(f"Compiled {made.relative_to(LOCALES.parent.parent)}.")
