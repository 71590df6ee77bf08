"""``python -m training.recipes.reward``: a reward model from rankings of K responses.

Reads a snapshot (JSONL, ``plackett/1``), forwards each prompt once with all its responses behind it, and trains one
linear layer to one score, with the trunk or a LoRA adapter below it, on the pairs of the rankings: Bradley-Terry, the
mean over a ranking's pairs, the weighted mean over a prompt's rankings, the mean over the prompts of a step.

Writes DIR/model (loads with ``AutoModelForSequenceClassification``), run.json, metrics.jsonl, report.json, checkpoints
and exit.json. The file reads downward: prepare, train step by step, finish.
"""

import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from training.core.checkpoints import load_checkpoint, newest_good_checkpoint, save_checkpoint
from training.core.dataset import (
    Dataset,
    Layout,
    build_dataset,
    model_fingerprint,
    packing_error,
    pair_tensors,
    score_dataset,
)
from training.core.errors import StopRequested, TrainingError, UsageError
from training.core.evaluation import correctness, evaluate, pair_table
from training.core.files import write_json
from training.core.losses import pair_loss
from training.core.model_card import reward_model_card
from training.core.modeling import (
    RewardModel,
    add_lora,
    choose_autocast,
    estimate_peak_bytes,
    load_reward_model,
    load_tokenizer,
    save_reward_model,
    set_pad_token,
)
from training.core.packing import collate, packing_refusal, plan_micro_batches
from training.core.process import STOP_SECONDS, log
from training.core.records import Snapshot, read_rankings
from training.core.runfolder import REPORT_NAME, MetricsFile, write_run
from training.core.schedule import Course, learning_rate, make_course
from training.core.tokens import ChatEncoder, settle_pad_token
from training.recipes.configs import RewardConfig, to_values
from training.recipes.launch import Session, check_same_run, is_finished, launch

CHECKPOINT_SECONDS = 600.0
SKIPPED_STEPS_IN_A_ROW = 10
PACKING_TOLERANCE = 1e-4


@dataclass
class Prepared:
    """All that the loop needs, made once at the start."""

    snapshot: Snapshot
    splits: dict[str, Dataset]
    tokenizer: Any
    encoder: ChatEncoder
    model: RewardModel
    layout: Layout
    layout_reason: str
    course: Course
    dropped: Counter[str]

    @property
    def train(self) -> Dataset:
        """The examples that are learned from."""
        return self.splits["train"]

    @property
    def validation(self) -> Dataset:
        """The held-out examples of the curves."""
        return self.splits["validation"]


class Saver:
    """Publishes checkpoints from the main process, each step at most once."""

    def __init__(
        self,
        session: Session[RewardConfig],
        parameters: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        metrics: MetricsFile | None,
        *,
        saved_step: int,
    ) -> None:
        self._session, self._parameters, self._optimizer, self._metrics = session, parameters, optimizer, metrics
        self._saved_step, self._saved_at = saved_step, time.monotonic()

    def seconds_since(self) -> float:
        """Time since the last checkpoint, or since the start."""
        return time.monotonic() - self._saved_at

    def save(self, step: int, *, skipped: int) -> None:
        """Publish the state at the end of ``step``, unless that is published already."""
        if self._metrics is None or step == self._saved_step:
            return
        self._metrics.sync()
        save_checkpoint(
            self._session.folder / "checkpoints",
            step=step,
            parameters=dict(self._parameters),
            optimizer=self._optimizer,
            state={"skipped_steps": skipped},
            keep=self._session.config.keep_checkpoints,
        )
        self._saved_step, self._saved_at = step, time.monotonic()


def train_reward(session: Session[RewardConfig]) -> str:
    """Train, evaluate and save; returns what was done, in one line.

    Raises:
        UsageError: bad data, model or resume.
        TrainingError: the gradients stay non-finite.
        StopRequested: asked to stop; the last published checkpoint holds.
    """
    config, world, stop = session.config, session.world, session.stop
    snapshot = read_rankings(Path(config.data))
    fingerprint = model_fingerprint(config.model)
    check_same_run(session, data_sha256=snapshot.sha256, model_fingerprint=fingerprint)
    if is_finished(session.folder):
        return "already finished"
    prepared = prepare(session, snapshot)
    model, course = prepared.model, prepared.course
    optimizer, parameters = make_optimizer(model, config)

    # Where to begin.
    step, skipped = 0, 0
    checkpoint = newest_good_checkpoint(session.folder / "checkpoints")
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, parameters=parameters, optimizer=optimizer)
        step, skipped = checkpoint.step, state["skipped_steps"]
        say(session, f"resuming behind step {step}")
    session.step = step
    metrics = None
    if world.is_main:
        attempt = write_run(
            session.folder,
            recipe=session.recipe,
            config=to_values(config),
            data_sha256=snapshot.sha256,
            model_fingerprint=fingerprint,
            facts=facts_of(session, prepared),
            world_size=world.size,
            from_step=step,
        )
        metrics = MetricsFile(session.folder, attempt=attempt, from_step=step)

    # The loop: one optimiser step a turn.
    last = min(course.steps, config.stop_after or course.steps)
    bar = tqdm(total=course.steps, initial=step, unit="step", disable=not (world.is_main and sys.stderr.isatty()))
    saver = Saver(session, parameters, optimizer, metrics, saved_step=step)
    in_a_row = 0
    scores: list[list[float]] | None = None
    stop.grace_seconds = STOP_SECONDS
    while step < last and not world.any(stop.requested, device=session.device):
        step += 1
        started = time.monotonic()
        rate = learning_rate(
            step, steps=course.steps, peak=config.learning_rate, warmup=config.warmup, schedule=config.schedule
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, accuracy, tokens = accumulate_gradients(session, prepared, course.batch(step))
        world.sum_gradients(parameters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters.values(), config.max_grad_norm))
        if math.isfinite(norm):
            optimizer.step()
            in_a_row = 0
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
        optimizer.zero_grad(set_to_none=True)
        if in_a_row == SKIPPED_STEPS_IN_A_ROW:
            raise TrainingError(f"the gradients of {in_a_row} steps in a row were not finite, up to step {step}")
        seconds = time.monotonic() - started

        row: dict[str, float | None] = {
            "train/loss": loss,
            "train/accuracy": accuracy,
            "train/learning_rate": rate,
            "train/grad_norm": norm,
            "train/skipped_steps": skipped,
            "time/step_seconds": round(seconds, 3),
            "time/tokens_per_second": round(tokens / seconds, 1),
        }
        scores = None
        if evaluation_is_due(config, course, step) and prepared.validation.examples:
            scores = score_dataset(
                model, prepared.validation, prepared.layout, world=world, interrupted=lambda: stop.requested
            )
            row["validation/accuracy"] = accuracy_of(prepared.validation, scores)
            row["time/evaluation_seconds"] = round(time.monotonic() - started - seconds, 3)
        session.step = step
        if metrics is not None:
            metrics.write(step, row)
            bar.update()
            if step % config.log_every == 0 or step == last:
                show_progress(bar, course, step, row)

        if step % config.checkpoint_every == 0 or saver.seconds_since() > CHECKPOINT_SECONDS:
            saver.save(step, skipped=skipped)
    saver.save(step, skipped=skipped)
    bar.close()
    if step < last:
        raise StopRequested(f"{stop.reason or 'stopped with another process'} after step {step}")
    if step < course.steps:
        return f"stopped after step {step} of {course.steps}, as --stop-after says"

    # The end. All steps are in a checkpoint: a request to stop may end the process at once from here on.
    stop.grace_seconds = 0.0
    if stop.requested:
        raise StopRequested(f"{stop.reason} after step {step}, before the report")
    report = make_report(session, prepared, scores, skipped=skipped)
    if world.is_main:
        write_json(session.folder / REPORT_NAME, report)
        card = reward_model_card(
            base=config.model, report=report, config=to_values(config), data_sha256=snapshot.sha256
        )
        save_reward_model(model, prepared.tokenizer, session.folder, card=card)
    return f"trained {course.steps} steps, {accuracy_words(report['validation'])}"


# --- preparing --------------------------------------------------------------------------------------------------------


def prepare(session: Session[RewardConfig], snapshot: Snapshot) -> Prepared:
    """Load tokenizer and model, encode the splits that are read, and decide on packing.

    Raises:
        UsageError: nothing to train on, or a model that cannot be used.
    """
    config = session.config
    tokenizer = load_tokenizer(config.model)
    encoder = ChatEncoder(tokenizer, show_thinking=config.thinking == "show")
    autocast = choose_autocast(config.dtype, session.device)
    model = load_reward_model(config.model, seed=config.seed, device=session.device, autocast_dtype=autocast)
    embedding_rows = model.whole.get_input_embeddings().num_embeddings
    pad_id = settle_pad_token(encoder, embedding_rows=embedding_rows)
    set_pad_token(model, pad_id)
    if config.lora_rank:
        model = add_lora(model, rank=config.lora_rank, seed=config.seed)
    if config.gradient_checkpointing:
        model.whole.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.whole.train()
    if session.device.type == "cpu":
        torch.use_deterministic_algorithms(True)

    dropped = Counter(snapshot.dropped)
    splits = encode_splits(config, snapshot, encoder, model, dropped)
    if not splits["train"].examples:
        raise UsageError(f"{snapshot.path} has no ranking to train on (read {snapshot.read}, dropped {dict(dropped)})")
    layout, reason = choose_layout(model, splits, budget=config.micro_batch_tokens, pad_id=pad_id)
    course = make_course(
        prompts=len(splits["train"].examples),
        batch_size=config.batch_size,
        epochs=config.epochs,
        max_steps=config.max_steps,
        seed=config.seed,
    )
    prepared = Prepared(snapshot, splits, tokenizer, encoder, model, layout, reason, course, dropped)
    describe_start(session, prepared)
    return prepared


def encode_splits(
    config: RewardConfig, snapshot: Snapshot, encoder: ChatEncoder, model: RewardModel, dropped: Counter[str]
) -> dict[str, Dataset]:
    """The data of each split that this run reads; the others are counted as dropped."""
    limit = getattr(model.whole.config.get_text_config(), "max_position_embeddings", None)
    max_length = min(config.max_length, limit or config.max_length)
    splits = {}
    for split in ("train", "validation", "test"):
        records = [record for record in snapshot.rankings if record.split == split]
        if split == "test" and config.evaluate_split != "test":
            dropped.update({"test_split": len(records)} if records else {})
            continue
        splits[split] = build_dataset(records, encoder, ties=config.ties, max_length=max_length, dropped=dropped)
    return splits


def choose_layout(model: RewardModel, splits: dict[str, Dataset], *, budget: int, pad_id: int) -> tuple[Layout, str]:
    """Whether rows are packed, and why: the config has to allow it, then the longest example has to score alike."""
    packed, separate = Layout(True, budget, pad_id), Layout(False, budget, pad_id)
    longest = max(splits.values(), key=lambda data: max((each.longest for each in data.tokenised), default=0))
    length = max(example.longest for example in longest.tokenised)
    if refusal := packing_refusal(model.whole.config.get_text_config(), longest=length):
        return separate, f"one response a row: {refusal}"
    gap = packing_error(model, longest, packed)
    if not gap <= PACKING_TOLERANCE:
        return separate, f"one response a row: packed and separate scores differ by {gap:.1e}"
    return packed, f"prompts shared by their responses (packed and separate scores differ by {gap:.1e})"


def make_optimizer(
    model: RewardModel, config: RewardConfig
) -> tuple[torch.optim.Optimizer, dict[str, torch.nn.Parameter]]:
    """AdamW over the trained parameters, weight decay on matrices alone; the parameters in the optimizer's order."""
    named = sorted(model.trainable(), key=lambda item: item[1].ndim < 2)
    matrices = [value for _, value in named if value.ndim >= 2]
    others = [value for _, value in named if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=(0.9, 0.999), fused=True
    )
    return optimizer, dict(named)


# --- one step ---------------------------------------------------------------------------------------------------------


def accumulate_gradients(
    session: Session[RewardConfig], prepared: Prepared, numbers: list[int]
) -> tuple[float, float, int]:
    """Forward and backward of a step's prompts, micro-batch by micro-batch, this process's share of them.

    Returns:
        The loss of the whole step (over all processes), the share of its strict pairs that are right, its tokens.
    """
    data, model, layout = prepared.train, prepared.model, prepared.layout
    # Sorted by length before sharing, so that all processes have about as much to do.
    by_length = sorted(numbers, key=lambda number: (-data.tokenised[number].longest, number))
    totals = torch.zeros(4, dtype=torch.float64, device=session.device)
    mine = session.world.share(by_length)
    for batch in plan_micro_batches(data.tokenised, mine, packed=layout.packed, budget=layout.budget):
        rows = collate(data.tokenised, batch, packed=layout.packed, pad_id=layout.pad_id, device=session.device)
        first, second, outcome, weight = pair_tensors(data.examples, batch, device=session.device)
        scores = model.score(rows)
        loss = pair_loss(scores, first, second, outcome, weight / len(numbers))
        loss.backward()  # type: ignore[no-untyped-call]
        strict = outcome == 1
        margin = (scores[first] - scores[second]).detach()[strict]
        right = ((margin.sign() + 1) / 2).sum()
        totals += torch.stack([loss.detach(), right, strict.sum(), torch.tensor(batch.tokens, device=session.device)])
    loss_total, right_total, strict_total, tokens = session.world.total(totals).tolist()
    return loss_total, right_total / strict_total if strict_total else math.nan, int(tokens)


def evaluation_is_due(config: RewardConfig, course: Course, step: int) -> bool:
    """Whether validation is scored behind this step; always behind the last."""
    due = step % config.evaluate_every == 0 if config.evaluate_every else course.ends_epoch(step)
    return due or step == course.steps


def accuracy_of(data: Dataset, scores: list[list[float]] | None) -> float | None:
    """The share of strict pairs that are right; None without scores or pairs."""
    if scores is None:
        return None
    margin = pair_table(data.examples, scores).margin
    return float(correctness(margin).mean()) if len(margin) else None


# --- the report -------------------------------------------------------------------------------------------------------


def make_report(
    session: Session[RewardConfig], prepared: Prepared, scores: list[list[float]] | None, *, skipped: int
) -> dict[str, Any]:
    """What ``report.json`` holds; validation is scored unless the last step just did, test only when asked."""
    config = session.config
    sections: dict[str, Any] = {}
    for split, data in prepared.splits.items():
        if split == "train":
            continue
        known = scores if split == "validation" else None
        known = known or score_dataset(prepared.model, data, prepared.layout, world=session.world)
        assert known is not None
        sections[split] = evaluate(data.examples, known, seed=config.seed)
    used = sum(data.rankings for data in prepared.splits.values())
    return {
        "kind": "reward",
        "steps": prepared.course.steps,
        "counts": {
            "read": prepared.snapshot.read,
            "used": used,
            "dropped": dict(sorted(prepared.dropped.items())),
            **{
                split: {"rankings": data.rankings, "prompts": len(data.examples), "pairs": data.pairs}
                for split, data in prepared.splits.items()
            },
        },
        **sections,
        "warnings": warnings_of(prepared, sections, skipped=skipped),
    }


def warnings_of(prepared: Prepared, sections: dict[str, Any], *, skipped: int) -> list[str]:
    """What a reader of the figures has to know, in words."""
    found = []
    for split, section in sections.items():
        accuracy, length = section["accuracy"], section["length_baseline"]
        if accuracy["value"] is None:
            found.append(f"There are no {split} pairs: held-out accuracy is unknown.")
            continue
        if accuracy["low"] is None:
            found.append(f"All {split} pairs are of one split group: there is no interval.")
        elif accuracy["low"] <= 0.5 <= accuracy["high"]:
            found.append(f"The interval of the {split} accuracy includes chance: too few pairs or nothing learned.")
        if accuracy["value"] <= length["value"]:
            found.append(f"On {split}, choosing the longer response is right at least as often as the model.")
        if section["temperature"] is None:
            found.append(f"No temperature fits the {split} scores: pairs are all right, or wrong as often as right.")
    if prepared.encoder.defused:
        found.append(f"{prepared.encoder.defused} texts hold control tokens; they were encoded as plain text.")
    if skipped:
        found.append(f"{skipped} steps were skipped because their gradients were not finite.")
    if not prepared.layout.packed:
        found.append(f"Not packed, {prepared.layout_reason}.")
    return found


def accuracy_words(section: dict[str, Any]) -> str:
    """Held-out accuracy in a few words."""
    accuracy = section["accuracy"]
    if accuracy["value"] is None:
        return "no validation pairs"
    low, high = accuracy["low"], accuracy["high"]
    interval = f" ({low:.3f} to {high:.3f})" if low is not None else ""
    length = section["length_baseline"]["value"]
    return f"validation accuracy {accuracy['value']:.3f}{interval} over {accuracy['pairs']} pairs, length {length:.3f}"


# --- what it says -----------------------------------------------------------------------------------------------------


def say(session: Session[RewardConfig], message: str) -> None:
    """One line on stderr, from the main process alone."""
    if session.world.is_main:
        log(message)


def describe_start(session: Session[RewardConfig], prepared: Prepared) -> None:
    """Device, arithmetic, sizes, data and layout, before the first step."""
    model, course = prepared.model, prepared.course
    trained = sum(value.numel() for _, value in model.trainable())
    whole = sum(value.numel() for value in model.whole.parameters())
    tokens = max(session.config.micro_batch_tokens, max(each.longest for each in prepared.train.tokenised))
    arithmetic = str(model.autocast_dtype).removeprefix("torch.")
    say(session, f"device {model.device}, weights float32, forward {arithmetic}, {session.world.size} process(es)")
    say(session, f"training {trained:,} of {whole:,} parameters, about "
                 f"{estimate_peak_bytes(model, tokens=tokens) / 2**30:.1f} GiB at the peak")  # fmt: skip
    say(session, f"chat template: {prepared.encoder.template_name}; pad {prepared.tokenizer.pad_token!r}")
    for split, data in prepared.splits.items():
        say(session, f"{split}: {data.rankings} rankings, {len(data.examples)} prompts, {data.pairs} pairs")
    if prepared.dropped:
        say(session, "dropped: " + ", ".join(f"{count} {name}" for name, count in sorted(prepared.dropped.items())))
    say(session, f"rows: {prepared.layout_reason}")
    say(session, f"{course.steps} steps of up to {course.batch_size} prompts")


def facts_of(session: Session[RewardConfig], prepared: Prepared) -> dict[str, Any]:
    """What ``run.json`` keeps of the decisions made at the start."""
    return {
        "device": str(prepared.model.device),
        "forward_dtype": str(prepared.model.autocast_dtype).removeprefix("torch."),
        "chat_template": prepared.encoder.template_name,
        "packed": prepared.layout.packed,
        "steps": prepared.course.steps,
    }


def show_progress(bar: "tqdm[Any]", course: Course, step: int, row: dict[str, float | None]) -> None:
    """The step's figures: behind the bar on a terminal, as a plain line elsewhere."""
    shown = {
        "loss": row["train/loss"],
        "norm": row["train/grad_norm"],
        "accuracy": row.get("validation/accuracy"),
    }
    words = {name: f"{value:.4f}" for name, value in shown.items() if value is not None}
    if bar.disable:
        figures = " ".join(f"{name} {value}" for name, value in words.items())
        log(f"step {step}/{course.steps} {figures} {row['time/step_seconds']} s")
    else:
        bar.set_postfix(words)


if __name__ == "__main__":
    sys.exit(launch("reward", RewardConfig, train_reward))
