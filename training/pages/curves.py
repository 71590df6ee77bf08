"""What a running run's page shows by kind: the latest figures, and the curves that ``run.js`` draws."""

from dataclasses import dataclass
from typing import Literal

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from training.models import Run

Unit = Literal["", "percent"]
Words = str | Promise


@dataclass(frozen=True)
class Curve:
    """A measurement over the steps; ``beside`` is drawn dashed with it, and ``note`` says what that is.

    ``floor`` is a value that the axis always reaches, ``line`` one that is marked, as ``line_name``.
    """

    series: str
    name: Words
    about: Words = ""
    beside: str = ""
    note: Words = ""
    unit: Unit = ""
    floor: str = ""
    line: str = ""
    line_name: Words = ""


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
            "validation/accuracy", _("Held-out accuracy"), beside="train/accuracy", unit="percent", line="0.5",
            line_name=_("chance"), note=_("dashed: on the batches trained from"),
        ),
        _GRADIENT,
    ),
    Run.Kind.SFT: (
        Curve(
            "train/loss", _("Loss"), _("nats a token"), beside="validation/loss",
            note=_("dashed: on held-out text"),
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
        Curve("ppo/score_mean", _("Score"), beside="validation/score", note=_("dashed: on held-out prompts")),
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


def curves_of(kind: str) -> tuple[Curve, ...]:
    """The curves of a kind of run; none for those that train nothing."""
    return CURVES[kind]


def series_of(kind: str) -> list[str]:
    """The measurements that the curves of a kind of run are drawn from."""
    return list(dict.fromkeys(name for curve in curves_of(kind) for name in (curve.series, curve.beside) if name))


def latest_of(kind: str) -> tuple[Latest, ...]:
    """The figures of a kind of run that stand above its curves."""
    return LATEST[kind]
