"""From ``--reward`` flags to sources that are ready to score, with all that can be refused refused beforehand."""

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from training.core.errors import UsageError
from training.core.halving import first_line
from training.core.reward_sources.answers import ExactReward, NumericReward
from training.core.reward_sources.episodes import PromptLine, RewardSource
from training.core.reward_sources.functions import FunctionReward
from training.core.reward_sources.grammar import RewardSpec, names_of
from training.core.reward_sources.models import Judge, ModelReward, Reading
from training.core.reward_sources.patterns import FormatReward, RegexReward
from training.core.reward_sources.programs import TestsReward
from training.core.reward_sources.running import ProgramLimits
from training.core.scorer import Scorer, load_scorer, member_folders


def make_sources(
    specs: Sequence[RewardSpec],
    prompts: Iterable[PromptLine],
    *,
    reading: Reading,
    allow_code_execution: bool = False,
    allowed_functions: Collection[str] | None = (),
    scorers: Mapping[str, Scorer] | None = None,
    programs: ProgramLimits | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> list[RewardSource]:
    """The sources of a run, in the order of the flags.

    Args:
        specs: the flags, taken apart by ``parse_reward``.
        prompts: every prompt that will be answered, of all splits: each source looks at each of them.
        reading: what reward models need to know of the policy.
        allow_code_execution: without it ``tests`` is refused.
        allowed_functions: the ``module.function`` that ``python:`` may name; None: any, as on the command line.
        scorers: models already in memory, by the folder or hub id that a flag names, such as a view of a shared trunk.
        programs: limits of the programs of ``tests``.
        say: where the log is told how each source works.

    Raises:
        UsageError: something is not allowed, cannot be loaded, or lacks what it needs in a prompt; the message names
            the flag, and the line.
    """
    sources: list[RewardSource] = []
    for spec, name in zip(specs, names_of(specs), strict=True):
        _refuse(spec, allow_code_execution=allow_code_execution, allowed_functions=allowed_functions)
        try:
            sources.append(_make(spec, name, reading, scorers or {}, programs or ProgramLimits(), say))
        except UsageError as error:
            raise UsageError(f"--reward {spec.text}: {error}") from None
    for line in prompts:
        for source, spec in zip(sources, specs, strict=True):
            try:
                source.check(line)
            except UsageError as error:
                raise UsageError(f"--reward {spec.text}: prompt line {line.line}: {error}") from None
    return sources


def _refuse(spec: RewardSpec, *, allow_code_execution: bool, allowed_functions: Collection[str] | None) -> None:
    if spec.kind == "tests" and not allow_code_execution:
        raise UsageError(f"--reward {spec.text} runs code that the policy writes: it needs --allow-code-execution")
    if spec.kind == "python" and allowed_functions is not None and spec.argument not in allowed_functions:
        raise UsageError(f"--reward {spec.text}: {spec.argument} is none of the functions allowed here "
                         f"({', '.join(sorted(allowed_functions)) or 'there are none'})")  # fmt: skip


def _make(
    spec: RewardSpec,
    name: str,
    reading: Reading,
    scorers: Mapping[str, Scorer],
    programs: ProgramLimits,
    say: Callable[[str], None],
) -> RewardSource:
    def tell(message: str) -> None:
        say(f"reward {name}: {message}")

    match spec.kind:
        case "model" | "ensemble":
            return _model_reward(spec, name, reading, scorers, tell)
        case "exact":
            return ExactReward(name, spec.weight, case_matters=spec.argument == "case")
        case "numeric":
            return NumericReward(name, spec.weight, tolerance=spec.tolerance)
        case "regex":
            return RegexReward(name, spec.weight, spec.argument)
        case "format":
            return FormatReward(name, spec.weight)
        case "tests":
            return TestsReward(name, spec.weight, programs, share=spec.argument == "share", say=tell)
        case _:
            return FunctionReward(name, spec.weight, load_function(spec.argument), show_thinking=reading.show_thinking)


def _model_reward(
    spec: RewardSpec, name: str, reading: Reading, scorers: Mapping[str, Scorer], say: Callable[[str], None]
) -> ModelReward:
    """One reward model, or all of an ensemble: those of a run made with --ensemble, whichever kind names it."""
    if spec.argument in scorers:
        members = [scorers[spec.argument]]
    else:
        members = [
            load_scorer(
                folder, device=reading.budget.device, autocast_dtype=reading.autocast_dtype,
                show_thinking=reading.show_thinking,
            )
            for folder in member_folders(spec.argument)
        ]  # fmt: skip
    if spec.kind == "ensemble" and len(members) < 2:
        raise UsageError(f"{spec.argument} is one model: an ensemble is the folder of a run made with --ensemble")
    if len(members) > 1:
        say(f"the mean of {len(members)} models" + (f" - {spec.spread:g} × their spread" if spec.spread else ""))
    return ModelReward(name, spec.weight, [Judge(each, reading, say=say) for each in members], spread=spec.spread)


def load_function(path: str) -> Callable[..., Any]:
    """The function that ``module.function`` names.

    Raises:
        UsageError: there is no such module or function, or the module fails when it is imported.
    """
    module_name, _, function_name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs somebody's code
        raise UsageError(f"cannot import {module_name}: {first_line(error)}") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(f"{module_name} has no function {function_name}")
    return function  # type: ignore[no-any-return]
