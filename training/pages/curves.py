"""What a running run's page shows by kind: the latest figures, and the curves that ``run.js`` draws."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from training.models import Run

Unit = Literal["", "percent"]
Words = str | Promise


@dataclass(frozen=True)
class Curve:
    """A measurement over the steps, and in the same chart another one, ``beside``, drawn dashed.

    ``own`` and ``beside_own`` say what each of the two is of; ``beside_name`` is what the other is called where it
    stands alone. ``floor`` is a value that the axis always reaches, ``line`` one that is marked, as ``line_name``.
    """

    series: str
    name: Words
    about: Words = ""
    own: Words = ""
    beside: str = ""
    beside_own: Words = ""
    beside_name: Words = ""
    unit: Unit = ""
    floor: str = ""
    line: str = ""
    line_name: Words = ""

    @property
    def lines(self) -> list[tuple[str, Words]]:
        """The series drawn, each with what it is of."""
        return [(self.series, self.own), (self.beside, self.beside_own)][: 1 + bool(self.beside)]


@dataclass(frozen=True)
class Latest:
    """A measurement whose last value stands above the curves."""

    series: str
    name: Words
    unit: Unit = ""


_GRADIENT = Curve("train/grad_norm", _("Gradient norm"), floor="0")
_ACCURACY = Curve(
    "validation/accuracy", _("Held-out accuracy"), unit="percent", line="0.5", line_name=_("chance")
)  # fmt: skip

CURVES: dict[str, tuple[Curve, ...]] = {
    Run.Kind.REWARD: (
        Curve("train/loss", _("Loss"), _("nats a pair"), floor="0"),
        Curve(
            "validation/accuracy", _("Held-out accuracy"), own=_("held out"), beside="train/accuracy",
            beside_own=_("batches trained from"), beside_name=_("Accuracy on the batches trained from"), unit="percent",
            line="0.5", line_name=_("chance"),
        ),
        _GRADIENT,
    ),
    Run.Kind.SFT: (
        Curve(
            "train/loss", _("Loss"), _("nats a token"), own=_("training text"), beside="validation/loss",
            beside_own=_("held-out text"), beside_name=_("Loss on held-out text"),
        ),
        Curve("validation/perplexity", _("Held-out perplexity")),
        _GRADIENT,
    ),
    Run.Kind.DPO: (
        Curve("train/loss", _("Loss"), _("nats a pair"), floor="0"),
        _ACCURACY,
        _GRADIENT,
    ),
    Run.Kind.PPO: (
        Curve(
            "ppo/score_mean", _("Score"), own=_("training prompts"), beside="validation/score",
            beside_own=_("held-out prompts"), beside_name=_("Score on held-out prompts"),
        ),
        Curve("validation/judge", _("Judge"), _("on held-out prompts")),
        Curve("ppo/kl", _("KL to the reference"), _("nats a response"), floor="0"),
        Curve("ppo/length_mean", _("Tokens a response"), floor="0"),
        Curve("ppo/entropy", _("Entropy"), _("nats a token"), floor="0"),
        _GRADIENT,
    ),
    Run.Kind.EVALUATE: (),
    Run.Kind.SAMPLE: (),
}  # fmt: skip

_ALWAYS = (
    Latest("train/learning_rate", _("learning rate")),
    Latest("train/grad_norm", _("gradient norm")),
    Latest("time/step_seconds", _("seconds a step")),
    Latest("train/skipped_steps", _("skipped steps")),
)

_SAMPLING = (
    Latest("sample/length_mean", _("tokens a response")),
    Latest("sample/ended_rate", _("ended by itself"), "percent"),
    Latest("time/tokens_per_second", _("tokens a second")),
    Latest("time/step_seconds", _("seconds a step")),
)

LATEST: dict[str, tuple[Latest, ...]] = {
    Run.Kind.REWARD: (
        Latest("train/loss", _("loss")), Latest("validation/accuracy", _("held-out accuracy"), "percent"), *_ALWAYS,
    ),
    Run.Kind.SFT: (Latest("train/loss", _("loss")), Latest("validation/perplexity", _("perplexity")), *_ALWAYS),
    Run.Kind.DPO: (
        Latest("train/loss", _("loss")), Latest("validation/accuracy", _("held-out accuracy"), "percent"), *_ALWAYS,
    ),
    Run.Kind.PPO: (
        Latest("ppo/score_mean", _("score")),
        Latest("ppo/kl", _("KL, nats a response")),
        Latest("ppo/length_mean", _("tokens a response")),
        Latest("ppo/eos_rate", _("ended by itself"), "percent"),
        Latest("train/grad_norm", _("gradient norm")),
        Latest("time/step_seconds", _("seconds a step")),
    ),
    Run.Kind.EVALUATE: (*_SAMPLING, Latest("sample/judge_mean", _("judge"))),
    Run.Kind.SAMPLE: (*_SAMPLING, Latest("sample/score_mean", _("score"))),
}  # fmt: skip


TIME = "time/step_seconds"


def curves_of(kind: str) -> tuple[Curve, ...]:
    """The curves of a kind of run; none for those that train nothing."""
    return CURVES[kind]


def series_of(kind: str) -> list[str]:
    """The measurements that the curves of a kind of run are drawn from, and the time of a step."""
    drawn = [name for curve in curves_of(kind) for name in (curve.series, curve.beside) if name]
    return list(dict.fromkeys([*drawn, TIME])) if drawn else []


def run_charts(run: Run) -> list[dict[str, Any]]:
    """The charts of one run's page: a line for the measurement, and one for that beside it."""
    return [
        {
            "key": curve.series,
            "curve": curve,
            "lines": [
                {"run": run.pk, "number": number, "series": series, "name": own}
                for number, (series, own) in enumerate(curve.lines, 1)
            ],
        }
        for curve in curves_of(run.kind)
    ]


def compared_charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The charts of several runs, each with a line for those that have such a curve."""
    charts: list[dict[str, Any]] = []
    for curve in _compared_curves([run.kind for run in runs]):
        lines = [
            {"run": run.pk, "number": number, "series": curve.series, "name": f"{run.name} {run.pk}"}
            for number, run in enumerate(runs, 1)
            if _has_curve(run.kind, curve)
        ]
        taken = [chart["key"] for chart in charts]
        key = curve.series if curve.series not in taken else f"{curve.series}.{len(taken)}"
        charts.append({"key": key, "curve": curve, "lines": lines})
    return charts


def use_charts() -> list[dict[str, Words]]:
    """The charts of a run's machines, by the figures of ``use_of``; a plain one is not smoothed unasked."""
    return [
        {"figure": "gpu_busy", "name": _("GPU at work"), "unit": "percent", "about": _("share of the time")},
        {"figure": "gpu_memory", "name": _("GPU memory in use"), "plain": "yes", "about": _("GiB")},
        {"figure": "memory", "name": _("Host memory in use"), "plain": "yes", "about": _("GiB")},
    ]


def _compared_curves(kinds: Sequence[str]) -> list[Curve]:
    """The curves of runs of these kinds, each in a chart of its own; those of several kinds once, if they are alike."""
    found: dict[tuple[str, str], Curve] = {}
    for curve in (curve for kind in dict.fromkeys(kinds) for curve in curves_of(kind)):
        alone = replace(curve, own="", beside="", beside_own="", beside_name="")
        found.setdefault((curve.series, str(curve.about)), alone)
        if curve.beside:
            beside = replace(alone, series=curve.beside, name=curve.beside_name)
            found.setdefault((curve.beside, str(curve.about)), beside)
    return list(found.values())


def _has_curve(kind: str, curve: Curve) -> bool:
    """Whether runs of the kind have this curve, in the same unit."""
    return any(
        curve.series in (one.series, one.beside) and str(one.about) == str(curve.about) for one in curves_of(kind)
    )


def latest_of(kind: str) -> tuple[Latest, ...]:
    """The figures of a kind of run that stand above its curves."""
    return LATEST[kind]
