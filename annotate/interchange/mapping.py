"""Which column (or data field, option, bucket) of a foreign file is which field of ours: `COLUMN=FIELD`."""

import re
from collections.abc import Iterable, Mapping

from annotate.interchange.records import MAX_RESPONSES

#: Says of a column that it is to be left out.
NOTHING = "-"
NUMBERED = re.compile(r"(response|model|rank|tier|option)_([1-9])")


class MappingError(ValueError):
    """A mapping that cannot be; the message says what to write instead."""


def numbered(*names: str) -> tuple[str, ...]:
    """`name_1` to `name_9` for each name."""
    return tuple(f"{name}_{number}" for name in names for number in range(1, MAX_RESPONSES + 1))


def mapping_from(pairs: Iterable[str]) -> dict[str, str]:
    """Read `COLUMN=FIELD` texts; a column may hold `=` itself.

    Raises:
        MappingError: no `=`, or a column named twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        column, sign, field = pair.rpartition("=")
        if not sign or not column or not field:
            raise MappingError(f"{pair!r} is no mapping; write COLUMN=FIELD, for example question=prompt")
        if column in found:
            raise MappingError(f"the column {column!r} is mapped twice")
        found[column] = field
    return found


def check_mapping(mapping: Mapping[str, str], *, format: str, fields: tuple[str, ...]) -> None:
    """Check that a format knows the fields, each given to one column.

    Raises:
        MappingError: it does not, or takes no mapping at all.
    """
    if mapping and not fields:
        raise MappingError(f"the format {format} has fixed names and takes no mapping")
    wanted = [field for field in mapping.values() if field != NOTHING]
    for field in wanted:
        if field not in fields:
            raise MappingError(f"there is no field {field!r}; there are {told(fields)}, and - to leave a column out")
        if wanted.count(field) > 1:
            raise MappingError(f"two columns are mapped to {field}")


def told(fields: Iterable[str]) -> str:
    """Field names in words, `response_1` to `response_9` as one."""
    found = dict.fromkeys(
        f"{name[1]}_1 to {name[1]}_{MAX_RESPONSES}" if (name := NUMBERED.fullmatch(field)) else field
        for field in fields
    )
    return ", ".join(found)


def columns_of(mapping: Mapping[str, str]) -> dict[str, str]:
    """Field → column, those to be left out apart."""
    return {field: column for column, field in mapping.items() if field != NOTHING}


def first_known(names: Iterable[str], present: Mapping[str, object]) -> str | None:
    """The first of the names that is there."""
    return next((name for name in names if name in present), None)
