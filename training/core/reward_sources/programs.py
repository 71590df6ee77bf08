"""Programs that the policy writes, run against the tests of their prompt.

Each runs in a process of its own under limits (``sandbox.py`` beside this); several at a time. That keeps a program
that is merely wrong from doing harm. It is no boundary against one that means harm.
"""

import ast
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from training.core.errors import UsageError
from training.core.reward_sources.episodes import Episode, PromptLine, ScoreFailure
from training.core.reward_sources.running import ProgramLimits, SandboxError, run_program

FENCE = "```"


class TestsReward:
    """1 if the program in the answer passes all tests of its prompt line, else 0; or the share that it passes.

    The line has them as ``"tests"``: Python source, or a list of such sources, each of which is one test. They run
    after the program, in its own namespace, in order; one fails by raising anything. ``share`` gives the passed tests
    over all of them, where one that fails keeps no other from being run.

    Raises:
        UsageError: no program can be run on this machine.
    """

    __test__ = False  # its name is no test's

    def __init__(
        self,
        name: str,
        weight: float,
        limits: ProgramLimits,
        *,
        share: bool = False,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.name, self.weight, self._share = name, weight, share
        try:
            self._limits, words = settle_isolation(limits)
        except SandboxError as error:
            raise UsageError(f"programs cannot be run here: {error}") from None
        say(words)

    def check(self, line: PromptLine) -> None:
        """Refuse a prompt without tests, or with some that are no Python."""
        for source in tests_of(line.record):
            try:
                ast.parse(source)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise UsageError(f'its "tests" are no Python: {error}') from None

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """The verdict on each episode's program, at most ``limits.parallel`` of them running at a time.

        Raises:
            ScoreFailure: one could not be run at all, which is no verdict.
        """
        with ThreadPoolExecutor(max_workers=self._limits.parallel) as pool:
            return list(pool.map(self._verdict, episodes, range(len(episodes))))

    def _verdict(self, episode: Episode, place: int) -> float:
        tests = tests_of(episode.record)
        try:
            passed = run_program(code_of(episode.text), tests, self._limits).passed
        except SandboxError as error:
            raise ScoreFailure(f"its program could not be run: {error}", place) from error
        return passed / len(tests) if self._share else float(passed == len(tests))


def settle_isolation(limits: ProgramLimits) -> tuple[ProgramLimits, str]:
    """The limits that can be had on this machine, found by running a program, and what to tell of them.

    Raises:
        SandboxError: not even without an account of its own does a program run.
    """
    probe, tests = "import decimal, json, math, random, re", ["assert json.loads('[1]') == [1]"]
    reason = ""
    for account in (True, False) if limits.own_account else (False,):
        tried = limits.without_account() if not account else limits
        try:
            outcome = run_program(probe, tests, tried)
        except SandboxError as error:
            reason = str(error)
            continue
        if outcome.passed:
            return tried, words_of(outcome.isolation, tried)
        reason = "a program that does nothing fails"
    raise SandboxError(reason)


def words_of(isolation: Mapping[str, bool], limits: ProgramLimits) -> str:
    """What holds of the isolation, in one line for the log."""
    ours = "the account of this process" + (" (ROOT)" if os.geteuid() == 0 else "")
    parts = [
        "no network" if isolation.get("network") else "THE NETWORK IS OPEN to them (no namespace to be had)",
        "processes of their own namespace" if isolation.get("processes") else "no namespace for their processes",
        "an account of their own" if isolation.get("account") else ours,
    ]  # fmt: skip
    return (f"programs run {limits.parallel} at a time, {limits.cpu_seconds} s of CPU and {limits.memory_bytes >> 20} "
            f"MiB each, with {', '.join(parts)}; no boundary against hostile code")  # fmt: skip


def tests_of(record: Mapping[str, Any]) -> list[str]:
    """The tests of a prompt line.

    Raises:
        UsageError: there are none, or they are neither a text nor a list of texts.
    """
    value = record.get("tests")
    tests: list[Any] = value if isinstance(value, list) else [value]
    if value is None or not tests:
        raise UsageError('it has no "tests"')
    if not all(isinstance(each, str) and each.strip() for each in tests):
        raise UsageError('its "tests" must be Python source, or a list of such texts')
    return tests


def code_of(answer: str) -> str:
    """The program in an answer: its last fenced block, closed or not, or all of it where there is none."""
    found: list[str] | None = None
    inside = False
    for line in answer.splitlines():
        if line.lstrip().startswith(FENCE):
            inside = not inside
            found = [] if inside else found
        elif inside and found is not None:
            found.append(line)
    return answer if found is None else "\n".join(found) + "\n"
