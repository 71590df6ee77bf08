"""Blind pairs: nobody who reads them can tell who wrote which, and the key can."""

import json

from training.core.blind_pairs import KEY_NAME, PAIRS_NAME, BlindPair, external_id_of, write_blind_pairs
from training.core.line_parts import Message


def pair(number, trained="Yes, {}.", start="No, {}.", **given):
    prompt = (Message("system", "Be brief."), Message("user", f"Is {number} even?"))
    fields = {"split": "validation", "split_group": f"g{number}", **given}
    return BlindPair(**{"prompt": prompt, "trained": trained.format(number), "start": start.format(number), **fields})


def read(folder):
    lines = [json.loads(line) for line in (folder / PAIRS_NAME).read_text().splitlines()]
    return lines, json.loads((folder / KEY_NAME).read_text())


def test_the_key_tells_who_wrote_what_and_the_lines_do_not(tmp_path):
    pairs = [pair(number) for number in range(200)]
    assert write_blind_pairs(tmp_path, pairs, seed=3, makers={"trained": "runs/7", "start": "sft"}) == {
        "written": 200,
        "dropped": {},
    }
    lines, key = read(tmp_path)
    assert key["makers"] == {"trained": "runs/7", "start": "sft"}
    firsts = 0
    for line, one in zip(lines, pairs, strict=True):
        assert set(line) == {"format", "type", "external_id", "split_group", "split", "prompt", "responses"}
        assert line["split"] == "validation" and line["split_group"] == one.split_group
        assert [set(response) for response in line["responses"]] == [{"id", "text"}] * 2
        assert [response["id"] for response in line["responses"]] == ["r1", "r2"]
        for response in line["responses"]:
            assert getattr(one, key["pairs"][line["external_id"]][response["id"]]) == response["text"]
        firsts += line["responses"][0]["text"] == one.trained
    assert 75 <= firsts <= 125, "the order is drawn"


def test_the_order_hangs_on_seed_and_pair_and_not_on_the_other_pairs(tmp_path):
    pairs = [pair(number) for number in range(40)]
    write_blind_pairs(tmp_path, pairs, seed=3)
    lines, _ = read(tmp_path)
    write_blind_pairs(tmp_path, pairs[::-2], seed=3)
    fewer, _ = read(tmp_path)
    assert fewer == lines[::-2]
    write_blind_pairs(tmp_path, pairs, seed=4)
    other, _ = read(tmp_path)
    assert [line["external_id"] for line in other] == [line["external_id"] for line in lines]
    assert [line["responses"] for line in other] != [line["responses"] for line in lines]


def test_a_name_does_not_tell_which_is_the_trained_ones():
    one = pair(1)
    assert external_id_of(one) == external_id_of(pair(1, trained=one.start, start=one.trained))
    assert external_id_of(one) != external_id_of(pair(2))


def test_what_tells_nothing_or_cannot_be_stored_is_left_out_and_counted(tmp_path):
    pairs = [
        pair(1),
        pair(1),
        pair(2, trained="same", start="same"),
        pair(3, trained="a\0"),
        pair(4, start="\ud800"),
        pair(5, prompt=(Message("user", " "),)),
        pair(6, trained=""),  # saying nothing is an answer
    ]
    assert write_blind_pairs(tmp_path, pairs, seed=1) == {
        "written": 2,
        "dropped": {
            "blank prompt": 1,
            "equal answers": 1,
            "text with NUL or half a surrogate pair": 2,
            "the same pair twice": 1,
        },
    }
    lines, key = read(tmp_path)
    assert len(lines) == len(key["pairs"]) == 2
    assert not list(tmp_path.glob("*.tmp"))
