"""What the report of a policy says (kinds ``sft``, ``dpo``, ``ppo``, ``comparison``), in words and tables.

Standard library only: pages import this without loading torch.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from training.core.comparison_words import sides_of
from training.core.report_words import Fact, Figure, Section, Table
from training.core.wording import ENGLISH, NOTHING, Wording


def policy_figures(report: Section, words: Wording = ENGLISH) -> list[Figure]:
    """The main figures of answers to held-out prompts, those there are; none without ``after``."""
    after = report.get("after")
    if not after:
        return []
    gettext = words.gettext
    best, sides = best_of(report), sides_of(report, words)
    shares = [
        (sides.wins, report.get("win_rate")),
        (gettext("wins at equal lengths"), report.get("length_controlled_win_rate")),
    ]
    shares += [(sides.best % {"n": best["n"]}, best)] if best else []
    found = [Figure(name, words.percent(one["value"]), interval_note(one, words)) for name, one in shares if one]
    means = (
        ("score", gettext("score")),
        ("length_mean", gettext("tokens a response")),
        ("kl", gettext("KL, nats a response")),
    )
    found += [
        Figure(name, words.figure(after[key]), _mean_note(report, key, words))
        for key, name in means
        if after.get(key) is not None
    ]
    return found


def _mean_note(report: Section, key: str, words: Wording) -> str:
    """What the first side has, and the difference to it; of the divergence, that it may be an estimate."""
    gettext = words.gettext
    if key == "kl":
        return gettext("estimated from samples") if report["after"][key] < 0 else ""
    first = sides_of(report, words).first_value % {"value": words.figure((report.get("before") or {}).get(key))}
    change = (report.get("change") or {}).get(key)
    if not change or change.get("value") is None:
        return first
    difference = {"first": first, "difference": words.interval(change, words.change)}
    return gettext("%(first)s, difference %(difference)s") % difference


def perplexity_figures(section: Section, before: Section, words: Wording = ENGLISH) -> list[Figure]:
    """The main figures of held-out text."""
    gettext, found = words.gettext, section["perplexity"]
    figures = [Figure(gettext("perplexity"), words.figure(found["value"]), interval_note(found, words, words.figure))]
    if before.get("perplexity"):
        figures.append(Figure(gettext("before training"), words.figure(before["perplexity"]["value"])))
    figures.append(Figure(gettext("loss, nats a token"), words.figure(section.get("loss"))))
    figures += [
        Figure(name, words.count(found[key]))
        for key, name in (("tokens", gettext("tokens")), ("documents", gettext("documents")))
        if key in found
    ]
    return figures


def interval_note(found: Mapping[str, Any], words: Wording, write: Callable[[float | None], str] | None = None) -> str:
    """`95 % interval 40.1 % to 52.0 %`, or nothing."""
    write = write or words.percent
    if found.get("low") is None or found["low"] == found["high"]:
        return ""
    ends = {end: write(found[end]) for end in ("low", "high")}
    return words.gettext("95 %% interval %(low)s to %(high)s") % ends


def policy_facts(report: Section, words: Wording = ENGLISH) -> list[Fact]:
    """The other figures that are one number, each with what it is; those there are."""
    return [
        *_suspicion(report, words),
        *_rewards(report, words),
        *_kept(report, words),
        *_wins(report, words),
        *_judge(report, words),
        *_blind_pairs(report, words),
    ]


def margin_facts(section: Section, words: Wording = ENGLISH) -> list[Fact]:
    """What DPO pulled apart in a split (``margins``), where that was measured."""
    found, gettext = section.get("margins"), words.gettext
    if not found:
        return []
    told = (
        ("margin", gettext("margin"), gettext(
            "Preferred − other response: β times the difference of what training did to their log-probabilities, in "
            "nats. Accuracy is how often it is above zero."
        )),
        ("preferred", gettext("preferred responses"), gettext(
            "Their own part of the margin: below zero, training made even the preferred ones less likely."
        )),
        ("other", gettext("other responses"), gettext("Their own part of the margin.")),
    )  # fmt: skip
    return [
        Fact(name, words.interval(found[key], words.figure), about)
        for key, name, about in told
        if (found.get(key) or {}).get("value") is not None
    ]


def perplexity_facts(section: Section, words: Wording = ENGLISH) -> list[Fact]:
    """How held-out loss changed, where it was measured before."""
    found = section.get("change")
    if not found:
        return []
    about = words.gettext("Held-out loss after − before training, nats a token, over the same text.")
    return [Fact(words.gettext("loss changed by"), words.interval(found, words.change), about)]


def policy_tables(report: Section, words: Wording = ENGLISH) -> list[Table]:
    """Everything measured before and after, and the course of the evaluations."""
    return [table for table in (_before_and_after(report, words), _course(report, words)) if table.rows]


def policy_plot_notes(report: Section, words: Wording = ENGLISH) -> dict[str, str]:
    """What each plot shows, by its name."""
    gettext = words.gettext
    return {
        "reward_kl": gettext(
            "What is trained for, and a judge that is not, as the policy moves away from its start. Where the score "
            "still rises and the judge falls, the reward is being exploited."
        ),
        "scores": gettext("The same over the steps, on held-out prompts."),
        "length": gettext(
            "Mean tokens of a response to held-out prompts. Half as many again as at the start is an alarm."
        ),
    }


# --- facts -----------------------------------------------------------------------------------------------------------


def _rewards(report: Section, words: Wording) -> Iterator[Fact]:
    """What the policy was trained towards, where the report says it."""
    found = report.get("rewards")
    if found:
        weights = ["" if one["weight"] == 1 else f" × {words.figure(one['weight'])}" for one in found]
        told = ", ".join(one["name"] + weight for one, weight in zip(found, weights, strict=True))
        about = words.gettext("What the policy was trained towards, summed with these weights.")
        yield Fact(words.gettext("rewarded"), told, about)


def _suspicion(report: Section, words: Wording) -> Iterator[Fact]:
    found = report.get("suspect")
    if found:
        name = words.gettext("suspect since step")
        yield Fact(name, words.count(found["step"]), " ".join(found["reasons"]))


def _kept(report: Section, words: Wording) -> Iterator[Fact]:
    step, gettext = report.get("kept_step"), words.gettext
    if step is None:
        return
    judged = any(point.get("judge") is not None for point in report.get("curve") or ())
    about = (
        gettext("The model has the weights of this step: the judge's score was highest there.")
        if judged
        else gettext("The model has the weights of this step: score less KL penalty was highest there.")
    )
    yield Fact(gettext("weights of step"), words.count(step), about)


def _wins(report: Section, words: Wording) -> Iterator[Fact]:
    plain, equal, best = (report.get("win_rate"), report.get("length_controlled_win_rate"), best_of(report))
    gettext, sides = words.gettext, sides_of(report, words)
    if plain:
        about = sides.about_wins % {"prompts": words.count(plain["prompts"])}
        yield Fact(sides.wins, words.interval(plain), about)
    if equal:
        about = sides.about_equal % {"longer": words.percent(equal.get("longer"), 0)}
        yield Fact(gettext("wins at equal lengths"), words.interval(equal), about)
    if best:
        about = sides.about_best % {"n": best["n"], "kl": words.figure(best["kl"])}
        if report.get("chosen_by") == "judge":
            about += " " + gettext("The judge itself chooses, so this is what it could be at most.")
        yield Fact(sides.best % {"n": best["n"]}, words.interval(best), about)


def _judge(report: Section, words: Wording) -> Iterator[Fact]:
    found, gettext = report.get("judge"), words.gettext
    if not found:
        return
    origin = {
        "made": gettext("A second reward model, trained by this run with another seed on half of the rankings."),
        "given": gettext("A second reward model that was given to the run."),
    }
    if found["source"] not in origin:
        yield Fact(gettext("judge"), NOTHING, str(found["source"]))
        return
    disjoint = {
        True: gettext("What it learned from and what the reward learned from have no prompt in common."),
        False: gettext("It learned from prompts that the reward learned from, too: it may share its mistakes."),
        None: gettext("It is not known what it learned from."),
    }  # fmt: skip
    about = f"{origin[found['source']]} {disjoint[found.get('disjoint')]}"
    accuracy = found.get("accuracy") or {"value": None}
    value = gettext("unknown") if accuracy["value"] is None else words.interval(accuracy)
    yield Fact(gettext("the judge's held-out accuracy"), value, about)


def _blind_pairs(report: Section, words: Wording) -> Iterator[Fact]:
    found, gettext = report.get("blind_pairs"), words.gettext
    if found:
        about = gettext(
            "Answers of both policies, in the run's folder as blind_pairs.jsonl, to import as ranking tasks: people "
            "decide."
        )
        yield Fact(gettext("pairs for people"), words.count(found["written"]), about)


def best_of(report: Section) -> Mapping[str, Any] | None:
    """The figure of ``best_of_N``, whatever N is."""
    found = (value for name, value in report.items() if name.startswith("best_of_"))
    return next((value for value in found if isinstance(value, Mapping) and "kl" in value), None)


# --- tables ----------------------------------------------------------------------------------------------------------


def _before_and_after(report: Section, words: Wording) -> Table:
    gettext = words.gettext
    before, after = report.get("before") or {}, report.get("after") or {}
    change: Mapping[str, Any] = report.get("change") or {}
    rewards = [(f"reward/{name}", gettext("reward: %(name)s") % {"name": name}) for name in after.get("reward") or ()]
    names = [
        ("score", gettext("score")),
        *(rewards if len(rewards) > 1 else []),
        ("judge", gettext("judge")),
        ("length_mean", gettext("tokens a response")),
        ("eos_rate", gettext("ended by itself")),
        ("distinct_1", gettext("distinct tokens")),
        ("distinct_2", gettext("distinct pairs of tokens")),
        ("distinct_3", gettext("distinct triples of tokens")),
        ("repetition", gettext("repeated in a response")),
        ("kl", gettext("KL, nats a response")),
        ("kl_k3", gettext("KL (k3), nats a token")),
        ("entropy", gettext("entropy, nats a token")),
    ]
    rows = []
    for key, name in names:
        share = key in SHARES
        values = [_value(part, key) for part in (before, after)]
        if values[1] is not None:
            write = words.percent if share else words.figure
            gap = words.interval(change.get(key), words.points if share else words.change)
            rows.append((name, *map(write, values), gap))
    note = gettext(
        "Answers to the same held-out prompts. Changes have 95 % intervals, of shares in points. The more text, the "
        "fewer distinct runs of tokens; repeated are runs of four."
    )
    sides = sides_of(report, words)
    head = (gettext("answers"), *sides.heads, gettext("change"))
    return Table(sides.table, note, head, tuple(rows))


# Of the figures of answers, those that are shares.
SHARES = frozenset({"eos_rate", "distinct_1", "distinct_2", "distinct_3", "repetition"})


def _value(part: Mapping[str, Any], key: str) -> float | None:
    source = key.removeprefix("reward/")
    found = part.get(key) if source == key else (part.get("reward") or {}).get(source)
    return None if found is None else float(found)


def _course(report: Section, words: Wording) -> Table:
    gettext = words.gettext
    keys = ("kl", "score", "judge", "length")
    rows = tuple(
        (words.count(point["step"]), *(words.figure(point.get(key)) for key in keys))
        for point in report.get("curve") or ()
    )
    head = (gettext("step"), gettext("KL"), gettext("score"), gettext("judge"), gettext("tokens"))
    return Table(gettext("Evaluations"), gettext("On held-out prompts, in the order of the run."), head, rows)
