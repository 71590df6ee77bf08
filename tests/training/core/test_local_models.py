"""Models made without a hub: an ordinary folder, one pad id, written by rename, harmless to ask for twice."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.core.local_models import LocalModelError, make_tiny_model


def test_tiny_model_is_an_ordinary_folder_with_one_pad_id(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pad = tokenizer.pad_token_id
    assert pad == model.config.pad_token_id == model.generation_config.pad_token_id
    assert pad != tokenizer.eos_token_id
    text = tokenizer.apply_chat_template([{"role": "user", "content": "é 日\n"}], tokenize=False)
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_tiny_model_depends_on_the_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(123)
    first = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "a", seed=1)).state_dict()
    torch.manual_seed(456)
    again = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "b", seed=1)).state_dict()
    other = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "c", seed=2)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_asking_twice_changes_nothing_and_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert make_tiny_model(folder) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(LocalModelError, match="not a model folder"):
        make_tiny_model(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
