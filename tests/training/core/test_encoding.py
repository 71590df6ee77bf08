"""Snapshots as memory-mapped arrays: the same examples as a plain reading gives, found again by what they depend on."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.snapshots import record, records, write_jsonl
from training.core.encoding import Encoded, Rules, cache_key, cache_roots, encode_snapshot
from training.core.errors import UsageError
from training.core.examples import pairs_of
from training.core.local_models import byte_tokenizer
from training.core.records import read_rankings
from training.core.tokens import ChatEncoder


def encode(path: Path, *, show_thinking: bool = False, cache: Path | None = None, **rules: Any) -> Encoded:
    encoder = ChatEncoder(byte_tokenizer(), show_thinking=show_thinking)
    settled = Rules(**{"splits": ("train", "validation"), "max_length": 10_000, **rules})
    return encode_snapshot(read_rankings(path), encoder, settled, roots=[cache or path.parent / "cache"])


def wild(number: int, draw: random.Random) -> dict[str, Any]:
    """A record with ties, unranked responses, strengths, equal texts and few prompts, so that rankings meet."""
    k = draw.randint(2, 6)
    texts = [draw.choice(["yes", "no", "perhaps", "x" * draw.randint(1, 40)]) for _ in range(k)]
    responses = [{"id": f"r{i}", "text": text, "thinking": draw.choice([None, "hm"])} for i, text in enumerate(texts)]
    ids = [f"r{i}" for i in range(k)]
    draw.shuffle(ids)
    placed = ids[: draw.randint(1, k)]
    tiers: list[list[str]] = []
    for name in placed:
        tiers[-1].append(name) if tiers and draw.random() < 0.3 else tiers.append([name])
    topic = draw.randint(0, 3)
    return record(
        number, split=draw.choice(["train", "validation", "test"]), responses=responses, ranking=tiers,
        strengths=[draw.choice([None, 1, 2, 3]) for _ in tiers[1:]], weight=draw.choice([0.5, 1.0, 2.0]),
        prompt=[{"role": "user", "content": f"topic {topic}"}], split_group=f"group {topic % 2}",
        annotator=draw.choice(["anna", "bob", None]), annotator_kind=draw.choice(["human", "model"]), task=f"t{topic}",
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("ties", "below", "thinking"), [(False, False, False), (True, True, True)])
def test_the_arrays_hold_what_the_lines_say(tmp_path: Path, seed: int, ties: bool, below: bool, thinking: bool) -> None:
    """Against a reading of the lines by hand: ids decoded again, responses and rankings by their texts."""
    draw = random.Random(seed)
    lines = [wild(number, draw) for number in range(40)]
    encoded = encode(write_jsonl(tmp_path / "d.jsonl", lines), ties=ties, below=below, show_thinking=thinking)
    tokenizer = byte_tokenizer()
    found: Counter[str] = Counter()
    for split, dataset in encoded.splits.items():
        for example, ids in zip(dataset, dataset.tokenised, strict=True):
            prompt = tokenizer.decode(ids.prompt).split("user\n")[1].split("<|im_end|>")[0]
            texts = [tokenizer.decode(response).removesuffix("<|im_end|>\n") for response in ids.responses]
            assert len(set(texts)) == len(texts) == len(example.lengths)
            assert dataset.longest[list(dataset.tokenised).index(ids)] == ids.longest
            for ranking in example.rankings:
                said = [[texts[place] for place in tier] for tier in ranking.tiers]
                rest = [texts[place] for place in ranking.unranked]
                name = None if ranking.annotator < 0 else dataset.annotators[ranking.annotator]
                found[repr((split, prompt, said, rest, ranking.strengths, ranking.weight, name, ranking.machine))] += 1
    expected: Counter[str] = Counter()
    for line in lines:
        shown = {r["id"]: f"<think>\nhm\n</think>\n\n{r['text']}" if thinking and r["thinking"] else r["text"]
                 for r in line["responses"]}  # fmt: skip
        said = [[shown[name] for name in tier] for tier in line["ranking"]]
        rest = [shown[name] for name in shown if not any(name in tier for tier in line["ranking"])] if below else []
        flat = [(tier, text) for tier, texts in enumerate(said) for text in texts] + [(99, text) for text in rest]
        informative = any(a[1] != b[1] and (a[0] != b[0] or (ties and a[0] != 99)) for a in flat for b in flat)
        if informative and line["split"] != "test":
            human = line["annotator_kind"] == "human"
            content = (line["prompt"][0]["content"], said, rest, tuple(line["strengths"]), line["weight"])
            expected[repr((line["split"], *content, line["annotator"], not human))] += 1
    assert found == expected
    assert sum(encoded.dropped.values()) + sum(found.values()) == len(lines)
    assert sum(data.rankings for data in encoded.splits.values()) == sum(found.values())
    for dataset in encoded.splits.values():
        assert dataset.pairs == sum(
            len(pairs_of(each, ties=ties, below=below)) for example in dataset for each in example.rankings
        )


def test_examples_stand_in_the_order_of_their_first_ranking(tmp_path: Path) -> None:
    lines = [record(number, split="train") for number in (5, 3, 9)]
    dataset = encode(write_jsonl(tmp_path / "d.jsonl", [*lines, lines[0] | {"annotator": "bob"}])).splits["train"]
    prompts = [byte_tokenizer().decode(each.prompt) for each in dataset.tokenised]
    assert [line["prompt"][0]["content"] in prompt for line, prompt in zip(lines, prompts, strict=True)] == [True] * 3
    assert [len(example.rankings) for example in dataset] == [2, 1, 1]
    assert [example.group for example in dataset] == [0, 1, 2]


def test_one_prompt_in_two_split_groups_stays_two_examples(tmp_path: Path) -> None:
    one = record(1, split="train")
    dataset = encode(write_jsonl(tmp_path / "d.jsonl", [one, one | {"split_group": "h", "task": "u"}])).splits["train"]
    assert [example.group for example in dataset] == [0, 1]


def test_what_is_too_long_is_dropped_and_counted(tmp_path: Path) -> None:
    long, loose = record(1, split="train", k=2), record(2, split="train", k=3)
    long["responses"][1]["text"] = "x" * 400
    place = int(loose["ranking"][2][0][1:])
    loose["responses"][place]["text"] = "x" * 400
    loose["ranking"] = loose["ranking"][:2]
    path = write_jsonl(tmp_path / "d.jsonl", [record(0, split="train"), long, loose])
    for below in (False, True):
        encoded = encode(path, max_length=200, below=below)
        assert encoded.dropped == {"too_long": 1}
        assert [len(example.lengths) for example in encoded.splits["train"]] == [3, 2]
        assert max(encoded.splits["train"].longest) <= 200


def test_a_ranking_without_a_pair_counts_where_ties_do(tmp_path: Path) -> None:
    lines = [record(1, split="train", k=2, ranking=[["r0", "r1"]]), record(2, split="train", k=2, ranking=[["r1"]])]
    path = write_jsonl(tmp_path / "d.jsonl", [*lines, record(3, split="train")])
    assert encode(path).dropped == {"no_pairs": 2}
    assert encode(path, ties=True).dropped == {"no_pairs": 1}
    assert encode(path, below=True).dropped == {"no_pairs": 1}
    assert encode(path, ties=True, below=True).dropped == {}


def test_thinking_tells_responses_apart_only_where_it_is_shown(tmp_path: Path) -> None:
    responses = [{"id": "r0", "text": "4", "thinking": "2+2"}, {"id": "r1", "text": "4", "thinking": "1+3"}]
    path = write_jsonl(tmp_path / "d.jsonl", [record(1, split="train", responses=responses, ranking=[["r0"], ["r1"]])])
    assert encode(path).dropped == {"no_pairs": 1}
    (ids,) = encode(path, show_thinking=True).splits["train"].tokenised
    assert "1+3" in byte_tokenizer().decode(ids.responses[1])


def test_an_entry_is_found_again_and_named_by_all_it_depends_on(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", records())
    first, again = encode(path), encode(path)
    assert (first.found, again.found) == (False, True)
    assert [list(a) for a in again.splits.values()] == [list(a) for a in first.splits.values()]
    assert (again.dropped, again.defused) == (first.dropped, first.defused)
    snapshot, rules = read_rankings(path), Rules(("train",), 100)
    other = byte_tokenizer()
    other.chat_template += "{# another #}"
    keys = {
        cache_key(snapshot, ChatEncoder(byte_tokenizer()), rules),
        cache_key(snapshot, ChatEncoder(byte_tokenizer(), show_thinking=True), rules),
        cache_key(snapshot, ChatEncoder(other), rules),
        cache_key(snapshot, ChatEncoder(byte_tokenizer()), Rules(("train",), 101)),
        cache_key(snapshot, ChatEncoder(byte_tokenizer()), Rules(("test",), 100)),
        cache_key(snapshot, ChatEncoder(byte_tokenizer()), Rules(("train",), 100, ties=True)),
        cache_key(snapshot, ChatEncoder(byte_tokenizer()), Rules(("train",), 100, below=True)),
        cache_key(read_rankings(write_jsonl(tmp_path / "e.jsonl", records(seed=1))),
                  ChatEncoder(byte_tokenizer()), rules),
    }  # fmt: skip
    assert len(keys) == 8


def test_a_broken_entry_is_built_anew(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", records())
    encode(path)
    (entry,) = (tmp_path / "cache").iterdir()
    (entry / "train" / "tokens.npy").write_bytes(b"no array")
    (entry / "meta.json").unlink()
    assert not encode(path).found
    assert encode(path).found


def test_the_ids_are_mapped_not_read(tmp_path: Path) -> None:
    dataset = encode(write_jsonl(tmp_path / "d.jsonl", records())).splits["train"]
    assert isinstance(dataset._arrays["tokens"], np.memmap)


def test_the_cache_keeps_the_entries_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.core.encoding.CACHE_ENTRIES", 2)
    path = write_jsonl(tmp_path / "d.jsonl", records(train=1, validation=0))
    for length in (100, 101, 102):
        encode(path, max_length=length)
        encode(path, max_length=100)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert encode(path, max_length=100).found
    assert not encode(path, max_length=101).found


def test_without_a_writable_cache_the_output_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLACKETT_CACHE", str(tmp_path / "file" / "sub"))
    roots = cache_roots(tmp_path / "run")
    snapshot = read_rankings(write_jsonl(tmp_path / "d.jsonl", records()))
    encode_snapshot(snapshot, ChatEncoder(byte_tokenizer()), Rules(("train",), 500), roots=roots)
    assert len(list((tmp_path / "run" / "cache").iterdir())) == 1
    with pytest.raises(UsageError, match="can be written"):
        encode_snapshot(snapshot, ChatEncoder(byte_tokenizer()), Rules(("train",), 99), roots=roots[:1])


def test_control_tokens_in_texts_are_counted_also_from_the_cache(tmp_path: Path) -> None:
    sly = record(1, split="train", k=2)
    sly["responses"][0]["text"] = "fine<|im_end|>"
    path = write_jsonl(tmp_path / "d.jsonl", [sly])
    assert [encode(path).defused, encode(path).defused] == [1, 1]


def test_a_text_that_cannot_be_encoded_is_named_by_its_line(tmp_path: Path) -> None:
    encoder = ChatEncoder(byte_tokenizer())
    refusal = "{% if messages[0]['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    encoder.tokenizer.chat_template = refusal + encoder.tokenizer.chat_template
    lines = [record(0, split="train"), record(1, split="train", prompt=[{"role": "tool", "content": "x"}])]
    snapshot = read_rankings(write_jsonl(tmp_path / "d.jsonl", lines))
    with pytest.raises(UsageError, match="line 2: chat template"):
        encode_snapshot(snapshot, encoder, Rules(("train",), 500), roots=[tmp_path / "cache"])
    assert not list(tmp_path.rglob("meta.json"))
