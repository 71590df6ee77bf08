"""The course of a run: batches from the seed alone, and the learning rate's shape."""

import math

import pytest

from training.core.randomness import derive_seed
from training.core.schedule import learning_rate, make_course


def test_each_pass_takes_every_prompt_once_in_an_order_of_its_own() -> None:
    course = make_course(prompts=10, batch_size=4, epochs=2, max_steps=None, seed=0)
    assert course.steps == 6
    first = [number for step in (1, 2, 3) for number in course.batch(step)]
    second = [number for step in (4, 5, 6) for number in course.batch(step)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [course.ends_epoch(step) for step in range(1, 7)] == [False, False, True, False, False, True]


def test_max_steps_goes_on_over_the_end_of_a_pass() -> None:
    course = make_course(prompts=3, batch_size=2, epochs=1, max_steps=5, seed=0)
    assert course.steps == 5
    assert [len(course.batch(step)) for step in range(1, 6)] == [2, 1, 2, 1, 2]


def test_the_order_depends_on_the_seed() -> None:
    orders = [
        make_course(prompts=20, batch_size=20, epochs=1, max_steps=None, seed=seed).batch(1) for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_seeds_of_purposes_and_steps_are_unlike() -> None:
    seeds = {derive_seed(seed, purpose, step) for seed in (0, 1) for purpose in ("a", "b") for step in range(5)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)


def rates(schedule: str, steps: int = 10, warmup: float = 0.2) -> list[float]:
    return [
        learning_rate(step, steps=steps, peak=1.0, warmup=warmup, schedule=schedule) for step in range(1, steps + 1)
    ]


def test_the_rate_rises_then_follows_its_schedule() -> None:
    cosine = [0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * place / 8)) for place in range(8)]
    assert rates("cosine") == pytest.approx(cosine)
    assert rates("linear") == pytest.approx([0.5, 1.0] + [1 - place / 8 for place in range(8)])
    assert rates("constant") == pytest.approx([0.5] + [1.0] * 9)


def test_no_step_is_spent_at_rate_zero_even_in_the_shortest_runs() -> None:
    for schedule in ("cosine", "linear", "constant"):
        for warmup in (0.0, 0.05, 1.0):
            for steps in (1, 2, 3):
                assert min(rates(schedule, steps, warmup)) > 0


def test_what_a_course_visits_is_what_its_steps_take() -> None:
    for steps in (1, 2, 3, 5):
        course = make_course(prompts=7, batch_size=3, epochs=1, max_steps=steps, seed=1)
        taken = {prompt for step in range(1, steps + 1) for prompt in course.batch(step)}
        assert course.visited() == sorted(taken)
