import pytest

from tests.order import long_first


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("number", [0, 1, 7, 40])
def test_each_process_begins_with_its_share_of_the_long_ones(number: int, processes: int) -> None:
    long = {item for item in range(number) if item % 5 == 4}
    ordered = long_first(range(number), long.__contains__, processes)
    assert sorted(ordered) == list(range(number))
    assert [item for item in ordered if item not in long] == [item for item in range(number) if item not in long]
    start, begun = 0, 0
    for process in range(processes):
        size = (number - start) // (processes - process)  # as xdist's worksteal hands them out
        share = len(range(process, len(long), processes))
        stretch = ordered[start : start + size]
        assert all(item in long for item in stretch[: min(share, size)])
        start, begun = start + size, begun + share
    assert start == number and begun == len(long)


def test_more_long_ones_than_fit_into_a_stretch_are_kept() -> None:
    assert sorted(long_first(range(5), lambda item: True, 4)) == list(range(5))
