"""Make the demo project's data files in ``annotate/demo/``; run from the repository root, in two steps.

    python -m tools.make_demo sample     prompts.jsonl -> demo.jsonl              (some minutes on two cores)
    python -m tools.make_demo combine    demo.jsonl + judgements.json -> example_rankings.jsonl

``sample`` lets SmolLM2-135M-Instruct answer every prompt at four or five settings that differ clearly; the responses
are shuffled, so that their ids tell nothing of the setting. ``combine`` adds the judgements, which are written by hand.
"""

import argparse
import hashlib
import json
import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from annotate.preferences import normalise_split_text, split_for_group
from training.core.local_models import unpack_smollm2

DEMO = Path(__file__).parent.parent / "annotate" / "demo"
MODEL = "SmolLM2-135M-Instruct"
MAX_ATTEMPTS = 20

Record = dict[str, Any]


class DemoError(Exception):
    """The input files do not fit together; the message names the prompt."""


@dataclass(frozen=True)
class Setting:
    """How to sample; a temperature of 0 means the likeliest token each time. Lengths in tokens.

    The repetition penalty divides the positive logits of tokens that the response holds already and multiplies the
    negative ones (after Keskar et al. 2019, CTRL, https://arxiv.org/abs/1909.05858, section 4.1); 1 does nothing. The
    prompt's tokens are left out: a summary needs them, and one of them is the token that ends a response.
    """

    name: str
    temperature: float
    top_p: float
    repetition_penalty: float = 1.0
    max_new_tokens: int = 220
    thirds: tuple[int, ...] = (0, 1, 2)
    """Used for the prompts whose number leaves one of these remainders when divided by 3."""


SETTINGS = [
    Setting("greedy", temperature=0.0, top_p=1.0),
    Setting("careful", temperature=0.3, top_p=0.95, repetition_penalty=1.1),
    Setting("plain", temperature=0.6, top_p=0.9),
    Setting("bold", temperature=1.0, top_p=0.8),
    Setting("short", temperature=0.8, top_p=0.9, max_new_tokens=48, thirds=(1,)),
    Setting("wild", temperature=1.3, top_p=0.5, thirds=(2,)),
]


@dataclass(frozen=True)
class Draw:
    """One response to sample: a prompt at a setting; ``attempt`` counts up while the result is of no use."""

    external_id: str
    setting: Setting
    attempt: int = 0

    @property
    def seed(self) -> int:
        digest = hashlib.sha256(f"{self.external_id} {self.setting.name} {self.attempt}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def again(self) -> "Draw":
        if self.setting.temperature == 0 or self.attempt + 1 == MAX_ATTEMPTS:
            raise DemoError(f"{self.external_id}: no usable response at the setting {self.setting.name}")
        return Draw(self.external_id, self.setting, self.attempt + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["sample", "combine"])
    parser.add_argument("--folder", type=Path, default=DEMO, help="where the files lie (default: annotate/demo)")
    parser.add_argument("--batch-size", type=int, default=20, help="responses sampled at once (default: 20)")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.step == "sample":
        prompts = read_jsonl(folder / "prompts.jsonl")
        write_jsonl(folder / "demo.jsonl", sample_demo(prompts, batch_size=arguments.batch_size))
    else:
        judgements = json.loads((folder / "judgements.json").read_text(encoding="utf-8"))
        write_jsonl(folder / "example_rankings.jsonl", combine(read_jsonl(folder / "demo.jsonl"), judgements))


# -- sampling ----------------------------------------------------------------------------------------------------------


def sample_demo(prompts: list[Record], batch_size: int) -> list[Record]:
    """Answer every prompt at its settings; return native records without a ranking: tasks to be ranked."""
    messages = {prompt["external_id"]: prompt["prompt"] for prompt in prompts}
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(unpack_smollm2(Path(folder) / "model"))
        answers = sample_all(sampler, messages, batch_size=batch_size)
    return [native_record(prompt, answers[prompt["external_id"]]) for prompt in prompts]


def sample_all(sampler: "Sampler", messages: dict[str, list[Record]], batch_size: int) -> dict[str, list[Record]]:
    """Sample all draws, one setting after the other, and again what came out empty, broken or twice."""
    answers: dict[str, list[Record]] = {external_id: [] for external_id in messages}
    for setting in SETTINGS:
        draws = [Draw(x, setting) for number, x in enumerate(messages, start=1) if number % 3 in setting.thirds]
        while draws:
            draws.sort(key=lambda draw: len(str(messages[draw.external_id])))
            again = []
            for batch in tqdm(list(batched(draws, batch_size)), desc=setting.name):
                texts = sampler.sample([messages[draw.external_id] for draw in batch], batch)
                for draw, (text, finish_reason) in zip(batch, texts, strict=True):
                    if is_usable(text) and all(text != other["text"] for other in answers[draw.external_id]):
                        answers[draw.external_id].append(response_of(draw, text, finish_reason))
                    else:
                        again.append(draw.again())
            draws = again
    return answers


def is_usable(text: str) -> bool:
    """Whether the text is there and whole: a broken multi-byte character decodes to U+FFFD."""
    return bool(text) and "\ufffd" not in text and "\0" not in text


def response_of(draw: Draw, text: str, finish_reason: str) -> Record:
    setting = draw.setting
    return {
        "text": text,
        "thinking": None,
        "model": MODEL,
        "settings": {
            "temperature": setting.temperature,
            "top_p": setting.top_p,
            "repetition_penalty": setting.repetition_penalty,
            "seed": draw.seed if setting.temperature else None,
            "max_new_tokens": setting.max_new_tokens,
            "finish_reason": finish_reason,
        },
    }


class Sampler:
    """A causal language model that answers conversations in left-padded batches with a key-value cache."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @torch.inference_mode()
    def sample(self, conversations: list[list[Record]], draws: list[Draw]) -> list[tuple[str, str]]:
        """Return text and finish reason ("stop" or "length") for each conversation; all draws share one setting."""
        setting = draws[0].setting
        texts = self.tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        uniforms = torch.stack([uniforms_of(draw) for draw in draws])  # (B, R)
        mask, ids, cache = inputs.attention_mask, inputs.input_ids, None
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        tokens = torch.empty(len(draws), 0, dtype=torch.long)  # (B, R so far)
        for step in range(setting.max_new_tokens):
            output = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
            )
            logits = penalise_repetition(output.logits[:, -1], tokens, setting.repetition_penalty)
            chosen = choose_tokens(logits, setting, uniforms[:, step])
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            if (tokens == self.tokenizer.eos_token_id).any(dim=1).all():
                break
            cache, ids, positions = output.past_key_values, chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(draws), 1)], dim=1)
        return [self.finish(row) for row in tokens.tolist()]

    def finish(self, tokens: list[int]) -> tuple[str, str]:
        eos = self.tokenizer.eos_token_id
        stopped = eos in tokens
        kept = tokens[: tokens.index(eos)] if stopped else tokens
        text = str(self.tokenizer.decode(kept, skip_special_tokens=True))
        if not stopped:
            text = text.rstrip("\ufffd")  # the last character may have been cut in the middle
        return text.strip(), "stop" if stopped else "length"


def uniforms_of(draw: Draw) -> torch.Tensor:
    """One uniform a position from the draw's own seed, so that the batch a draw sits in does not matter."""
    generator = torch.Generator().manual_seed(draw.seed)
    return torch.rand(draw.setting.max_new_tokens, generator=generator, dtype=torch.float64)


def penalise_repetition(logits: torch.Tensor, tokens: torch.Tensor, penalty: float) -> torch.Tensor:
    """Make the tokens that stand in the response already less likely. Shapes: logits (B, V), tokens (B, R)."""
    seen = logits.gather(1, tokens)
    return logits.scatter(1, tokens, torch.where(seen < 0, seen * penalty, seen / penalty))


def choose_tokens(logits: torch.Tensor, setting: Setting, uniforms: torch.Tensor) -> torch.Tensor:
    """Draw one token a row by inverse CDF from the smallest set of tokens whose probability reaches ``top_p``.

    Shapes: logits (B, V), uniforms (B,), result (B,).
    """
    if setting.temperature == 0:
        return logits.argmax(dim=1)
    probabilities, order = torch.softmax(logits.double() / setting.temperature, dim=1).sort(dim=1, descending=True)
    cumulative = probabilities.cumsum(dim=1)
    nucleus = cumulative - probabilities < setting.top_p
    mass = (probabilities * nucleus).sum(dim=1)
    place = torch.searchsorted(cumulative, (uniforms * mass)[:, None], right=True)
    place = place.clamp(max=nucleus.sum(dim=1, keepdim=True) - 1)
    return order.gather(1, place).squeeze(1)


# -- records -----------------------------------------------------------------------------------------------------------


def native_record(prompt: Record, responses: list[Record]) -> Record:
    """Return the record of a prompt with its responses in an order that depends on the prompt's id alone."""
    shuffled = random.Random(prompt["external_id"]).sample(responses, len(responses))
    group = normalise_split_text(prompt["prompt"])
    return {
        "format": "plackett/1",
        "external_id": prompt["external_id"],
        "split_group": group,
        "split": split_for_group(group),
        "kind": "normal",
        "category": prompt["category"],
        "prompt": prompt["prompt"],
        "responses": [{"id": f"r{number}", **response} for number, response in enumerate(shuffled, start=1)],
    }


def combine(records: Iterable[Record], judgements: dict[str, Record]) -> list[Record]:
    """Join each record with its judgement to an example ranking.

    Raises:
        DemoError: a judgement is missing, left over, or does not name each response once.
    """
    records = list(records)
    left_over = judgements.keys() - {record["external_id"] for record in records}
    if left_over:
        raise DemoError(f"judgements without a prompt: {', '.join(sorted(left_over))}")
    return [example_ranking(record, judgements.get(record["external_id"], {})) for record in records]


def example_ranking(record: Record, judgement: Record) -> Record:
    ranking, unranked = judgement.get("ranking", []), judgement.get("unranked", [])
    named = sorted([response_id for tier in ranking for response_id in tier] + unranked)
    if named != sorted(response["id"] for response in record["responses"]):
        raise DemoError(f"{record['external_id']}: the judgement does not name each response once")
    gaps = max(len(ranking) - 1, 0)
    strengths = judgement.get("strengths", [None] * gaps)
    if len(strengths) != gaps:
        raise DemoError(f"{record['external_id']}: {len(strengths)} strengths for {len(ranking)} tiers")
    return record | {
        "counted": True,
        "ranking": ranking,
        "unranked": unranked,
        "strengths": strengths,
        "all_bad": judgement.get("all_bad", False),
        "flags": judgement.get("flags", {}),
        "rationale": judgement["note"],
        "annotator": "example rankings",
        "annotator_kind": "example",
        "weight": 1.0,
        "revision": 1,
    }


# -- files -------------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def batched(items: list[Draw], size: int) -> Iterator[list[Draw]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


if __name__ == "__main__":
    main()
