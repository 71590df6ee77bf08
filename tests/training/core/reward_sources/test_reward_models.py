"""Reward models as sources: sampled ids or text, packed or not, one or several, thinking hidden or shown."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from tests.training.core.reward_sources.episodes import episode
from training.core.distributed import World
from training.core.errors import TrainingError, UsageError
from training.core.halving import MicroBatchBudget
from training.core.local_models import CHATML_TEMPLATE, byte_tokenizer
from training.core.modeling import load_reward_model
from training.core.records import Message, Response
from training.core.reward_sources.episodes import Episode, ScoreFailure, make_episode, score_all
from training.core.reward_sources.grammar import parse_reward
from training.core.reward_sources.making import make_sources
from training.core.reward_sources.models import Judge, ModelReward, Reading, same_tokenizer
from training.core.saving import ScoreScale, fold_scale, save_reward_model
from training.core.scorer import Scorer, load_scorer
from training.core.tokens import ChatEncoder, settle_pad_token

CPU = torch.device("cpu")
MEAN = 0.7
TEXTS = ["It is four.", "Four!", "I do not know, but it may well be five or six.", ""]
PROMPTS = ["What is two and two?", "And now?"]


def write_reward_model(base: Path, target: Path, *, seed: int, tokenizer: Any = None) -> Path:
    """What our recipe leaves: a whole folder whose config has the mean in it."""
    model = load_reward_model(str(base), seed=seed, device=CPU, autocast_dtype=torch.float32)
    fold_scale(model, ScoreScale(mean=MEAN, std=1.0), thresholds={}, ties="skip")
    save_reward_model(model, tokenizer or AutoTokenizer.from_pretrained(base), target, card="")
    return target


@pytest.fixture(scope="module")
def reward_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reward_model(tiny_model, tmp_path_factory.mktemp("reward") / "model", seed=1)


@pytest.fixture(scope="module")
def other_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose tokenizer gives the bytes other ids, and whose template has other words."""
    return write_reward_model(
        tiny_model, tmp_path_factory.mktemp("other") / "model", seed=2, tokenizer=backward_tokenizer()
    )


@pytest.fixture(scope="module")
def ensemble_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("ensemble")
    for number in range(3):
        write_reward_model(tiny_model, run / "ensemble" / str(number), seed=number)
    write_reward_model(tiny_model, run / "model", seed=0)
    return run


def backward_tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    backend = Tokenizer(models.BPE(vocab={symbol: place for place, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML_TEMPLATE.replace("'\n' + message", "': ' + message").replace(
        "assistant\n", "assistant: "
    )
    return tokenizer


def reading(tokens: int = 4096, *, show: bool = False, prompt: int = 64, response: int = 64) -> Reading:
    budget = MicroBatchBudget(tokens=tokens, floor=8, world=World(), device=CPU)
    return Reading(
        ChatEncoder(byte_tokenizer()), budget, torch.float32, show_thinking=show, longest_prompt=prompt,
        max_response_length=response,
    )  # fmt: skip


def scorer_of(folder: Path, *, show: bool = False) -> Scorer:
    return load_scorer(str(folder), device=CPU, autocast_dtype=torch.float32, show_thinking=show)


def judge(folder: Path, **of_reading: Any) -> Judge:
    return Judge(scorer_of(folder, show=of_reading.get("show", False)), reading(**of_reading), say=lambda message: None)


def sampled(prompt: str, text: str, *, ended: bool = True) -> Episode:
    """As a policy with the byte tokenizer would have said it."""
    tokenizer = byte_tokenizer()
    messages = (Message("user", prompt),)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return make_episode(
        tokenizer, replace(episode(""), prompt=messages), ChatEncoder(tokenizer).encode_prompt(messages).ids,
        [*ids, tokenizer.eos_token_id] if ended else ids, ended=ended,
    )  # fmt: skip


def all_sampled() -> list[Episode]:
    # Prompts in turn, so that samples of one do not stand together.
    return [sampled(prompt, text) for text in TEXTS for prompt in PROMPTS]


@pytest.fixture
def plainly() -> Callable[..., float]:
    """The score that plain transformers give a text, less the mean."""
    loaded: dict[Path, tuple[Any, Any]] = {}

    def score(folder: Path, text: str) -> float:
        if folder not in loaded:
            loaded[folder] = (AutoModelForSequenceClassification.from_pretrained(folder),
                              AutoTokenizer.from_pretrained(folder))  # fmt: skip
        model, tokenizer = loaded[folder]
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            return float(model(input_ids=ids).logits[0, 0]) - MEAN

    return score


def rendered(prompt: str, answer: str, ending: str = "<|im_end|>\n") -> str:
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}{ending}"


def test_scores_are_those_of_plain_transformers_on_the_whole_conversation(
    reward_folder: Path, plainly: Callable[..., float]
) -> None:
    model = judge(reward_folder)
    assert model.same_tokenizer
    assert model.packed
    wanted = [plainly(reward_folder, rendered(prompt, text)) for text in TEXTS for prompt in PROMPTS]
    assert model.score(all_sampled()) == pytest.approx(wanted, abs=1e-5)
    assert statistics.pstdev(wanted) > 0.01


def test_a_model_with_another_tokenizer_reads_the_text_in_its_own_template(
    other_folder: Path, plainly: Callable[..., float]
) -> None:
    model = judge(other_folder)
    assert not model.same_tokenizer

    def words(prompt: str, text: str, ending: str = "<|im_end|>\n") -> str:
        return f"<|im_start|>user: {prompt}<|im_end|>\n<|im_start|>assistant: {text}{ending}"

    wanted = [plainly(other_folder, words(prompt, text)) for text in TEXTS for prompt in PROMPTS]
    assert model.score(all_sampled()) == pytest.approx(wanted, abs=1e-5)
    cut = plainly(other_folder, words("And?", "Four an", ending=""))
    assert model.score([sampled("And?", "Four an", ended=False)]) == pytest.approx([cut], abs=1e-5)


def test_ids_and_text_say_the_same(reward_folder: Path) -> None:
    model = judge(reward_folder)
    episodes = [*all_sampled(), sampled("And?", "Four an", ended=False)]
    by_ids = model.score(episodes)
    model.same_tokenizer = False
    # The sampled ids are not looked at any more.
    blanked = [replace(each, prompt_ids=(0,), response_ids=(0,)) for each in episodes]
    assert model.score(blanked) == pytest.approx(by_ids, abs=1e-5)


def test_the_sampled_ids_are_read_as_they_are(reward_folder: Path) -> None:
    # Ids that no text is encoded to, a control token among them, are what the policy said.
    model = judge(reward_folder)
    said = sampled("And?", "Four")
    other = replace(said, response_ids=(byte_tokenizer().bos_token_id, *said.response_ids))
    assert abs(model.score([said])[0] - model.score([other])[0]) > 1e-3


def test_a_response_that_was_cut_off_gets_no_ending(reward_folder: Path, plainly: Callable[..., float]) -> None:
    (score,) = judge(reward_folder).score([sampled("And?", "Four an", ended=False)])
    assert score == pytest.approx(plainly(reward_folder, rendered("And?", "Four an", ending="")), abs=1e-5)
    assert abs(score - plainly(reward_folder, rendered("And?", "Four an"))) > 1e-3


@pytest.mark.parametrize("packed", [True, False])
def test_how_much_is_forwarded_at_once_changes_nothing(reward_folder: Path, packed: bool) -> None:
    whole = judge(reward_folder).score(all_sampled())
    small = judge(reward_folder, tokens=8)
    small.packed = packed
    assert small.score(all_sampled()) == pytest.approx(whole, abs=1e-5)


def test_out_of_memory_makes_smaller_micro_batches(reward_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = judge(reward_folder)
    whole = model.score(all_sampled())
    forward = model._forward

    def fails_above(examples: Any, tokens: int) -> list[list[float]]:
        if tokens > 3000:
            raise torch.OutOfMemoryError("no more")
        return forward(examples, tokens)

    monkeypatch.setattr(model, "_forward", fails_above)
    assert model.score(all_sampled()) == pytest.approx(whole, abs=1e-5)
    assert model._reading.budget.tokens == 2048


def test_no_episodes_have_no_scores_but_meet_the_others(reward_folder: Path) -> None:
    class Counted(World):
        met = 0

        def any(self, flag: bool, *, device: torch.device) -> bool:
            Counted.met += 1
            return super().any(flag, device=device)

    model = judge(reward_folder)
    model._reading.budget.world = Counted()
    assert model.score([]) == []
    assert Counted.met == 1
    # Nor does a failure keep a process from meeting the others, as often as they expect it.
    unknown = replace(sampled("And?", "Four"), response_ids=(5000,), ended=False)
    with pytest.raises(ScoreFailure, match="id 5000"):
        ModelReward("model", 1.0, [model, model]).score([unknown])
    assert Counted.met == 3


# --- thinking ---------------------------------------------------------------------------------------------------------


def test_thinking_is_hidden_or_shown(reward_folder: Path, plainly: Callable[..., float]) -> None:
    said = sampled("And?", "<think>Two and two.</think>Four")
    assert (said.thinking, said.text) == ("Two and two.", "Four")
    assert judge(reward_folder).score([said]) == pytest.approx(
        [plainly(reward_folder, rendered("And?", "Four"))], abs=1e-5
    )
    # Shown, it is what was sampled, tags and all.
    whole = plainly(reward_folder, rendered("And?", "<think>Two and two.</think>Four"))
    assert judge(reward_folder, show=True).score([said]) == pytest.approx([whole], abs=1e-5)


def test_another_tokenizer_is_shown_thinking_in_the_usual_tags(
    other_folder: Path, plainly: Callable[..., float]
) -> None:
    said = sampled("And?", "<think>Two and two.</think>Four")
    start = "<|im_start|>user: And?<|im_end|>\n<|im_start|>assistant: "
    usual = plainly(other_folder, start + "<think>\nTwo and two.\n</think>\n\nFour<|im_end|>\n")
    assert judge(other_folder, show=True).score([said]) == pytest.approx([usual], abs=1e-5)
    assert judge(other_folder).score([said]) == pytest.approx(
        [plainly(other_folder, start + "Four<|im_end|>\n")], abs=1e-5
    )


@pytest.mark.parametrize("ended", [True, False])
def test_nothing_but_hidden_thinking_is_an_empty_answer(
    reward_folder: Path, plainly: Callable[..., float], ended: bool
) -> None:
    said = [sampled("And?", "Four"), sampled("And?", "<think>Two and", ended=ended)]
    wanted = plainly(reward_folder, rendered("And?", ""))
    assert judge(reward_folder).score(said)[1] == pytest.approx(wanted, abs=1e-5)


def test_a_response_without_any_token_is_scored_at_the_prompts_end(
    reward_folder: Path, plainly: Callable[..., float]
) -> None:
    said = [sampled("And?", "Four"), replace(sampled("And?", ""), response_ids=(), ended=False)]
    wanted = [plainly(reward_folder, rendered("And?", "Four")), plainly(reward_folder, rendered("And?", "", ending=""))]
    assert judge(reward_folder).score(said) == pytest.approx(wanted, abs=1e-5)


# --- which tokenizers are alike ---------------------------------------------------------------------------------------


def test_tokenizers_are_alike_if_they_encode_alike() -> None:
    ours, theirs = ChatEncoder(byte_tokenizer()), ChatEncoder(byte_tokenizer())
    assert same_tokenizer(ours, theirs)
    # How something is padded, and our own pad token, change no ids.
    theirs.tokenizer(["a", "bc"], padding=True)
    taken = byte_tokenizer()
    taken.pad_token = taken.eos_token
    grown = ChatEncoder(taken)
    grown.control_tokens = {name: number for name, number in grown.control_tokens.items() if name != "<|endoftext|>"}
    settle_pad_token(grown, embedding_rows=0)
    assert taken.pad_token_id >= len(byte_tokenizer())
    assert same_tokenizer(ours, theirs)
    assert same_tokenizer(ours, grown)
    assert not same_tokenizer(ours, ChatEncoder(backward_tokenizer()))
    other_template = byte_tokenizer()
    other_template.chat_template = CHATML_TEMPLATE.replace("<|im_end|>", "<|im_end|> ")
    assert not same_tokenizer(ours, ChatEncoder(other_template))
    more = byte_tokenizer()
    more.add_tokens(["four"])
    assert not same_tokenizer(ours, ChatEncoder(more))


# --- several ----------------------------------------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_less_the_spread(ensemble_folder: Path) -> None:
    members = [judge(ensemble_folder / "ensemble" / str(number)).score(all_sampled()) for number in range(3)]
    wanted = [statistics.fmean(row) - 0.5 * statistics.pstdev(row) for row in zip(*members, strict=True)]
    spec = parse_reward(f"ensemble:{ensemble_folder},0.5*2")
    (source,) = make_sources([spec], [episode("")], reading=reading())
    found = score_all([source], all_sampled())
    assert found.by_name["ensemble"] == pytest.approx(wanted, abs=1e-5)
    assert found.total == pytest.approx([2 * score for score in wanted], abs=1e-5)
    means = [statistics.fmean(row) for row in zip(*members, strict=True)]
    assert max(abs(mean - score) for mean, score in zip(means, wanted, strict=True)) > 0.01
    # As a model, the run is the mean of its members.
    (plain,) = make_sources([parse_reward(f"model:{ensemble_folder}")], [], reading=reading())
    assert plain.score(all_sampled()) == pytest.approx(means, abs=1e-5)


def test_one_model_is_no_ensemble(reward_folder: Path) -> None:
    with pytest.raises(UsageError, match="is one model"):
        make_sources([parse_reward(f"ensemble:{reward_folder}")], [], reading=reading())


def test_a_model_in_memory_stands_for_its_folder(reward_folder: Path) -> None:
    spec, said = parse_reward("model:not/a/folder/at/all"), []
    ready = {"not/a/folder/at/all": scorer_of(reward_folder)}
    (source,) = make_sources([spec], [], reading=reading(), scorers=ready, say=said.append)
    assert source.score(all_sampled()) == judge(reward_folder).score(all_sampled())
    assert said == [said[0]]
    assert said[0].startswith("reward model: the reward model reads the sampled ids")


# --- what is refused --------------------------------------------------------------------------------------------------


def test_lengths_that_the_model_cannot_take_are_refused_at_the_start(reward_folder: Path, other_folder: Path) -> None:
    # The tiny model has 4096 positions; its template's ending is <|im_end|> and a line feed.
    assert judge(reward_folder, prompt=4000, response=94).limit == 4096
    with pytest.raises(UsageError, match="4097 tokens, and the reward model takes 4096"):
        judge(reward_folder, prompt=4000, response=95)
    # What a text takes in other tokens cannot be known.
    model = judge(other_folder, prompt=4000, response=95)
    with pytest.raises(ScoreFailure, match="takes 4096") as failure:
        model.score([sampled("And?", "Four"), sampled("And?", "x" * 4096)])
    assert failure.value.place == 1


def test_an_id_that_the_model_does_not_know_is_a_failure(reward_folder: Path) -> None:
    said = sampled("And?", "Four")
    source = ModelReward("model", 1.0, [judge(reward_folder)])
    with pytest.raises(TrainingError, match="reward model, prompt line 1: id 5000 was sampled"):
        score_all([source], [said, replace(said, response_ids=(5000,), ended=False)])


def test_a_prompt_that_the_models_template_refuses_is_refused_at_the_start(tiny_model: Path, tmp_path: Path) -> None:
    strict = backward_tokenizer()
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + strict.chat_template
    )
    folder = write_reward_model(tiny_model, tmp_path / "strict", seed=0, tokenizer=strict)
    lines = [episode("", line=1), episode("", line=3, prompt=(Message("system", "Be brief."), Message("user", "?")))]
    with pytest.raises(UsageError, match="prompt line 3: chat template: it refuses the roles system, user"):
        make_sources([parse_reward(f"model:{folder}")], lines, reading=reading())


def test_scores_that_are_not_finite_end_training(reward_folder: Path) -> None:
    scorer = scorer_of(reward_folder)
    with torch.no_grad():
        scorer.model.head.weight.fill_(torch.nan)
    source = ModelReward("model", 1.0, [Judge(scorer, reading(), say=lambda message: None)])
    with pytest.raises(TrainingError, match="reward model, prompt line 1: the score nan"):
        score_all([source], all_sampled())


def test_the_response_is_read_as_text_only_if_it_has_to_be(reward_folder: Path) -> None:
    model = judge(reward_folder)
    assert Response("x") == Response("x", None)
    said = replace(sampled("And?", "Four"), text="something else")
    assert model.score([said]) == model.score([sampled("And?", "Four")])
