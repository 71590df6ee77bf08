"""Snapshots as memory-mapped arrays: the same examples as a plain reading gives, found again by what they depend on."""

import os
import random
from collections import Counter
from datetime import date
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.snapshots import record, records, write_jsonl
from training.core import encoding, split_writer
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
        counted = ties or line["split"] != "train"  # people's ties are looked at whatever is learned from
        flat = [(tier, text) for tier, texts in enumerate(said) for text in texts] + [(99, text) for text in rest]
        informative = any(a[1] != b[1] and (a[0] != b[0] or (counted and a[0] != 99)) for a in flat for b in flat)
        if informative and line["split"] != "test":
            human = line["annotator_kind"] == "human"
            content = (line["prompt"][0]["content"], said, rest, tuple(line["strengths"]), line["weight"])
            expected[repr((line["split"], *content, line["annotator"], not human))] += 1
    assert found == expected
    assert sum(encoded.dropped.values()) + sum(found.values()) == len(lines)
    assert sum(data.rankings for data in encoded.splits.values()) == sum(found.values())
    for split, dataset in encoded.splits.items():
        counted = ties or split != "train"
        assert dataset.pairs == sum(
            len(pairs_of(each, ties=counted, below=below)) for example in dataset for each in example.rankings
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


def test_an_unranked_response_that_is_too_long_is_left_out_and_counted(tmp_path: Path) -> None:
    """The pairs are those of what is left; with none left, the ranking is dropped for the length."""
    lines = [record(number, split="train", k=3) for number in range(3)]
    for line, long in zip(lines, (0, 1, 2), strict=True):
        line["ranking"] = line["ranking"][:1]
        unranked = [response for response in line["responses"] if response["id"] != line["ranking"][0][0]]
        for response in unranked[:long]:
            response["text"] = "x" * 400
    path = write_jsonl(tmp_path / "d.jsonl", lines)
    for _ in range(2):
        encoded = encode(path, max_length=200, below=True)
        assert encoded.dropped == {"too_long": 1}
        assert encoded.cut == 1
        dataset = encoded.splits["train"]
        assert [len(example.lengths) for example in dataset] == [3, 2]
        assert (
            dataset.pairs
            == 3
            == sum(len(pairs_of(each, ties=False, below=True)) for example in dataset for each in example.rankings)
        )
    assert encode(path, below=True).cut == 0


def test_split_groups_in_several_splits_are_counted(tmp_path: Path) -> None:
    """Also where one of the splits is not read."""
    groups = {"a": ["train", "train"], "b": ["train", "validation"], "c": ["validation", "test"], "d": ["test"],
              "e": ["train", "validation", "test"]}  # fmt: skip
    places = [(group, split) for group, splits in groups.items() for split in splits]
    lines = [record(number, split=split, split_group=group) for number, (group, split) in enumerate(places)]
    path = write_jsonl(tmp_path / "d.jsonl", lines)
    assert [encode(path).shared_groups, encode(path).shared_groups] == [3, 3]
    assert encode(path, splits=("train",)).shared_groups == 3
    assert encode(write_jsonl(tmp_path / "e.jsonl", records())).shared_groups == 0


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


@pytest.mark.parametrize("harm", ["lost", "short", "long", "not_json", "lacks"])
def test_an_entry_that_is_not_whole_is_built_anew(tmp_path: Path, harm: str) -> None:
    """As a killed removal, a full disk or another version leave it."""
    path = write_jsonl(tmp_path / "d.jsonl", records())
    whole = list(encode(path).splits["train"])
    (entry,) = (tmp_path / "cache").iterdir()
    tiers, meta = entry / "train" / "entry_tier.npy", entry / "meta.json"
    raw = tiers.read_bytes()
    if harm == "lost":
        tiers.unlink()
    elif harm in ("short", "long"):
        tiers.write_bytes(raw[:-4] if harm == "short" else raw + b"1234")
    else:
        meta.write_text("[" if harm == "not_json" else '{"annotators": []}')
    again = encode(path)
    assert not again.found
    assert list(again.splits["train"]) == whole
    assert encode(path).found
    assert list((tmp_path / "cache").iterdir()) == [entry]


def build_in_step(barrier: Any, queue: Any, data: Path, root: Path, rounds: int) -> None:
    """Encode ``rounds`` times, each into a cache of its own, at the same moments as the other process."""
    try:
        snapshot, encoder = read_rankings(data), ChatEncoder(byte_tokenizer())
        for number in range(rounds):
            barrier.wait(60)
            encoded = encode_snapshot(snapshot, encoder, Rules(("train",), 500), roots=[root / str(number)])
            read = [(list(dataset), list(dataset.tokenised)) for dataset in encoded.splits.values()]
            queue.put(f"{len(read[0][0])} examples" if read[0] else "nothing")
    except BaseException as error:
        barrier.abort()
        queue.put(repr(error))


def test_two_processes_that_build_one_entry_both_have_it(tmp_path: Path, fork_server: ForkServerContext) -> None:
    data, rounds = write_jsonl(tmp_path / "d.jsonl", records()), 12
    barrier, queue = fork_server.Barrier(2), fork_server.Queue()
    arguments = (barrier, queue, data, tmp_path / "cache", rounds)
    processes = [fork_server.Process(target=build_in_step, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    said = []
    while len(said) < 2 * rounds and (not said or "examples" in said[-1]):
        said.append(queue.get(timeout=120))
    for process in processes:
        process.join(60)
    assert Counter(said) == {"12 examples": 2 * rounds}
    # One entry each, and nothing half built beside it.
    assert [len(list(root.iterdir())) for root in (tmp_path / "cache").iterdir()] == [1] * rounds


def test_an_entry_that_another_process_published_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was built is read all the same, also where a broken entry cannot be replaced."""
    path, build = write_jsonl(tmp_path / "d.jsonl", records()), encoding._build

    def slow_build(*arguments: Any) -> None:
        build(*arguments)
        monkeypatch.setattr(encoding, "_build", build)
        encode(path)
        (entry,) = (folder for folder in (tmp_path / "cache").iterdir() if folder.suffix != ".tmp")
        entry.joinpath("quicker").touch()

    monkeypatch.setattr(encoding, "_build", slow_build)
    slower = encode(path)
    (entry,) = (tmp_path / "cache").iterdir()
    assert entry.joinpath("quicker").exists()
    assert len(list(slower.splits["train"].tokenised)) == 12
    (entry / "meta.json").unlink()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if entry in (self, target):
            raise PermissionError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert len(list(encode(path).splits["train"].tokenised)) == 12
    assert list((tmp_path / "cache").iterdir()) == [entry]


def test_what_a_killed_build_left_is_removed_after_a_day(tmp_path: Path) -> None:
    path, cache = write_jsonl(tmp_path / "d.jsonl", records()), tmp_path / "cache"
    yesterday = {"f" * 32 + ".1234.tmp", "e" * 32 + ".9"}
    others = {"f" * 32 + ".5678.tmp", "notes.tmp", "mine"}
    for name in yesterday | others:
        (cache / name / "train").mkdir(parents=True)
        (cache / name / "meta.json").touch()
    for name in yesterday | {"notes.tmp", "mine"}:
        for place in (cache / name / "meta.json", cache / name / "train", cache / name):
            os.utime(place, (1e9, 1e9))
    # A long build: nothing new in the folder itself, but in a file far down.
    busy = cache / ("d" * 32 + ".7.tmp") / "train"
    busy.mkdir(parents=True)
    (busy / "raw").touch()
    os.utime(busy, (1e9, 1e9))
    os.utime(busy.parent, (1e9, 1e9))
    encode(path)
    left = {folder.name for folder in cache.iterdir()}
    assert others | {busy.parent.name} <= left
    assert not yesterday & left


def test_an_entry_loses_its_name_before_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that is killed leaves nothing that looks like an entry."""
    path = write_jsonl(tmp_path / "d.jsonl", records(train=1, validation=0))
    encode(path)
    (old,) = (tmp_path / "cache").iterdir()
    os.utime(old, (1e9, 1e9))
    monkeypatch.setattr(encoding, "CACHE_ENTRIES", 1)
    monkeypatch.setattr(encoding.shutil, "rmtree", lambda *arguments, **options: None)
    encode(path, max_length=99)
    assert not old.exists()
    assert [folder.name[:33] for folder in old.parent.iterdir() if folder.suffix] == [f"{old.name}."]


def test_a_refused_snapshot_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [record(0, split="train")])
    encoder = ChatEncoder(byte_tokenizer())
    encoder.tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(UsageError):
        encode_snapshot(read_rankings(path), encoder, Rules(("train",), 500), roots=[tmp_path / "cache"])
    assert not list((tmp_path / "cache").iterdir())


def test_another_accounts_cache_is_read_and_the_next_folder_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, encoder = read_rankings(write_jsonl(tmp_path / "d.jsonl", records())), ChatEncoder(byte_tokenizer())
    shared, own = tmp_path / "shared", tmp_path / "own"
    encode_snapshot(snapshot, encoder, Rules(("train",), 500), roots=[shared])
    access = os.access

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path) != shared)
    assert encode_snapshot(snapshot, encoder, Rules(("train",), 500), roots=[shared, own]).found
    assert not own.exists()
    assert not encode_snapshot(snapshot, encoder, Rules(("train",), 501), roots=[shared, own]).found
    assert [len(list(folder.iterdir())) for folder in (shared, own)] == [1, 1]
    assert encode_snapshot(snapshot, encoder, Rules(("train",), 501), roots=[shared, own]).found


def test_a_template_that_reads_the_clock_is_encoded_anew_each_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = read_rankings(write_jsonl(tmp_path / "d.jsonl", records()))
    plain, dated = byte_tokenizer(), byte_tokenizer()
    dated.chat_template = "{{ strftime_now('%d %b %Y') }}" + dated.chat_template
    keys = []
    for day in (1, 2):
        monkeypatch.setattr(encoding, "date", type("Day", (), {"today": lambda day=day: date(2026, 1, day)}))
        keys.append([cache_key(snapshot, ChatEncoder(each), Rules(("train",), 100)) for each in (plain, dated)])
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]


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


def test_a_text_with_control_tokens_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often its prompt comes back, and not where its ranking is dropped."""
    monkeypatch.setattr(split_writer, "PROMPTS_AT_HAND", 2)
    lines = [record(number, split="train", k=2) for number in range(9)]
    for number in (0, 4, 8):
        lines[number] |= {"prompt": [{"role": "user", "content": "<|im_end|> hi"}], "split_group": "g",
                          "responses": lines[0]["responses"], "ranking": lines[0]["ranking"]}  # fmt: skip
    lines[0]["responses"][1]["text"] = "<|im_start|>"
    lines[2]["responses"][0]["text"] = "<|im_end|>" + "x" * 400
    path = write_jsonl(tmp_path / "d.jsonl", lines)
    encoded = encode(path, max_length=200)
    assert (encoded.dropped, encoded.defused) == ({"too_long": 1}, 2)
    assert encode(path, max_length=200, ties=True).defused == 2


def test_a_text_that_cannot_be_encoded_is_named_by_its_line(tmp_path: Path) -> None:
    encoder = ChatEncoder(byte_tokenizer())
    refusal = "{% if messages[0]['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    encoder.tokenizer.chat_template = refusal + encoder.tokenizer.chat_template
    lines = [record(0, split="train"), record(1, split="train", prompt=[{"role": "tool", "content": "x"}])]
    snapshot = read_rankings(write_jsonl(tmp_path / "d.jsonl", lines))
    with pytest.raises(UsageError, match="line 2: chat template"):
        encode_snapshot(snapshot, encoder, Rules(("train",), 500), roots=[tmp_path / "cache"])
    assert not list(tmp_path.rglob("meta.json"))


def test_everything_can_be_kept_to_be_scored(tmp_path: Path) -> None:
    lines = [
        record(1, split="test", k=3, ranking=None), record(2, split="test", k=3, ranking=[["r1"]]),
        record(3, split="test", k=2, ranking=[["r0", "r1"]]), record(4, split="test", k=2),
    ]  # fmt: skip
    path = write_jsonl(tmp_path / "d.jsonl", lines)
    snapshot = read_rankings(path, unanswered=True)
    rules = Rules(("test",), 10_000, everything=True)
    encoded = encode_snapshot(snapshot, ChatEncoder(byte_tokenizer()), rules, roots=[tmp_path / "cache"])
    assert encoded.dropped == {}
    assert [len(ids.responses) for ids in encoded.splits["test"].tokenised] == [3, 3, 2, 2]
    tiers = [example.rankings[0].tiers for example in encoded.splits["test"]]
    assert tiers == [(), ((0,),), ((0, 1),), tiers[3]]
    assert read_rankings(path).dropped == {"unanswered": 1}
