"""What was made from snapshots elsewhere. Whoever makes something says here how it is found: annotate knows nobody."""

from collections.abc import Callable, Collection, Sequence

#: Ids of snapshots → what was made from them, in words.
Finder = Callable[[Collection[int]], Sequence[str]]

_finders: list[Finder] = []


def tells_of_models(finder: Finder) -> Finder:
    """Registers what finds the models that were trained from snapshots. Called once, when the app is ready."""
    if finder not in _finders:
        _finders.append(finder)
    return finder


def models_from(snapshots: Collection[int]) -> list[str]:
    """The names of the models that were trained, themselves or through another, from these snapshots."""
    return [name for finder in _finders for name in finder(snapshots)] if snapshots else []
