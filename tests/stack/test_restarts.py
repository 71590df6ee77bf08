"""When a part that ended is started again."""

from webapp.stack.restarts import RestartPolicy


def test_pauses_grow_and_then_the_part_is_given_up() -> None:
    policy = RestartPolicy(pauses=(1, 2), steady=60)
    policy.started("web", at=0)
    assert policy.pause("web", at=10) == 1
    policy.started("web", at=11)
    assert policy.pause("web", at=12) == 2
    policy.started("web", at=14)
    assert policy.pause("web", at=15) is None


def test_a_long_life_begins_with_the_shortest_pause_again() -> None:
    policy = RestartPolicy(pauses=(1, 2), steady=60)
    policy.started("web", at=0)
    policy.pause("web", at=10)
    policy.started("web", at=11)
    assert policy.pause("web", at=71) == 1


def test_starts_that_fail_after_a_long_life_are_counted() -> None:
    policy = RestartPolicy(pauses=(1, 2), steady=60)
    policy.started("Postgres", at=0)
    assert [policy.pause("Postgres", at=moment) for moment in (1000, 1001, 1003)] == [1, 2, None]


def test_parts_are_counted_apart() -> None:
    policy = RestartPolicy(pauses=(1, 2), steady=60)
    policy.pause("web", at=0)
    assert policy.pause("worker-gpu", at=0) == 1
