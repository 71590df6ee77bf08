"""Which test begins when: long ones first, so that none of them is what everybody waits for at the end.

`pytest --dist worksteal` gives each of its N processes one of N equal stretches of the list, in order; whoever has
nothing left takes from the end of the fullest. So each stretch gets its share of the long tests at its beginning. The
rest keep their order, since tests of one module share what that module sets up.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeVar

Item = TypeVar("Item")


def long_first(items: Sequence[Item], is_long: Callable[[Item], bool], processes: int) -> list[Item]:
    """`items` in stretches for so many processes, as equal as `worksteal` cuts them, each with its long ones first."""
    long = [item for item in items if is_long(item)]
    rest = iter([item for item in items if not is_long(item)])
    ends = list(accumulate(_sizes(len(items), processes)))
    ordered: list[Item] = []
    for process, end in enumerate(ends):
        ordered += long[process::processes]
        ordered += [next(rest) for _ in range(end - len(ordered))]
    return ordered


def _sizes(number: int, parts: int) -> list[int]:
    """As xdist divides: each takes an equal share, rounded down, of what those before it have left."""
    sizes: list[int] = []
    for part in range(parts):
        sizes.append((number - sum(sizes)) // (parts - part))
    return sizes
