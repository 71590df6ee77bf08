"""Texts that give away their maker, and texts that merely talk about one."""

import json
import time

import pytest

from annotate import leaks
from annotate.leaks import MAX_PHRASE, identity_leak
from tests.conftest import SHARED_DATA

LEAKS = {
    "As ChatGPT, I cannot browse the web.": "As ChatGPT, I",
    "I'm sorry, but as ChatGPT I have no feelings.": "as ChatGPT I",
    "As a language model trained by OpenAI, I do not know.": "As a language model trained by OpenAI",
    "Please note that as an AI language model developed by OpenAI I may be wrong.": (
        "as an AI language model developed by OpenAI"
    ),
    "I am Claude, made by Anthropic.": "I am Claude, made by Anthropic",
    "Hello! I'm Claude, an AI assistant created by Anthropic to be helpful.": (
        "I'm Claude, an AI assistant created by Anthropic"
    ),
    "As Claude, I aim to be honest.": "As Claude, I",
    "I'm LLaMA, nice to meet you.": "I'm LLaMA",
    "I am a large language model, trained by Google.": "I am a large language model, trained by Google",
    "I was developed by Google DeepMind.": "I was developed by Google DeepMind",
    "I'm an AI model called GPT-4.": "I'm an AI model called GPT-4",
    'I am an artificial intelligence called "Open Assistant".': (
        'I am an artificial intelligence called "Open Assistant'
    ),
    "My name is Vicuna, and I help people.": "My name is Vicuna",
    "I'm Joi, a helpful assistant trained by OpenAssistant on a large corpus.": (
        "I'm Joi, a helpful assistant trained by OpenAssistant"
    ),
    "I have been trained by OpenAI to answer.": "I have been trained by OpenAI",
    "You should ask my creators at Anthropic.": "my creators at Anthropic",
    "OpenAI created me to help.": "OpenAI created me",
    "I cannot write that, because it goes against OpenAI's content policy.": (
        "I cannot write that, because it goes against OpenAI's content policy"
    ),
    "I'm OpenAI's language model.": "I'm OpenAI's language model",
    "Ich bin ChatGPT und helfe gern.": "Ich bin ChatGPT",
    "Ich bin ein von OpenAI entwickeltes Sprachmodell.": "Ich bin ein von OpenAI entwickeltes",
    "Als von OpenAI trainiertes Sprachmodell kann ich das nicht.": "Als von OpenAI trainiertes",
    "Als ChatGPT kann ich das nicht beurteilen.": "Als ChatGPT kann ich",
    "Ich wurde von Anthropic entwickelt.": "Ich wurde von Anthropic entwickelt",
    "Je suis ChatGPT, un assistant.": "Je suis ChatGPT",
    "En tant que modèle de langage développé par OpenAI, je ne peux pas.": (
        "En tant que modèle de langage développé par OpenAI"
    ),
    "J'ai été créé par Mistral AI.": "J'ai été créé par Mistral AI",
    "Soy un modelo de lenguaje entrenado por OpenAI.": "Soy un modelo de lenguaje entrenado por OpenAI",
    "Como ChatGPT, no puedo opinar.": "Como ChatGPT, no puedo",
    "Fui creado por Google.": "Fui creado por Google",
    "我是ChatGPT，很高兴认识你。": "我是ChatGPT",
    "我是由OpenAI训练的语言模型。": "我是由OpenAI训练",
    "作为由百度开发的语言模型，我不能回答。": "作为由百度开发",
    "我是通义千问。": "我是通义千问",
    '"As ChatGPT, I would say no."': "As ChatGPT, I",
}
ABOUT = [
    "ChatGPT is a language model made by OpenAI.",
    "I think ChatGPT is a great tool, and I like it.",
    "You can use tools such as ChatGPT, Claude or Gemini.",
    "Tools such as ChatGPT, my favourite, help with drafts.",
    "While I use the same technology as ChatGPT, my abilities differ.",
    "I am not as capable as ChatGPT.",
    "No, I am not ChatGPT.",
    "I'm a ChatGPT user and a developer at Google.",
    "I'm ChatGPT's biggest fan.",
    "I am a developer who uses a framework created by Google.",
    "I was trained by Google as a cloud engineer.",
    "As an AI language model, I cannot predict the future.",
    "I am an AI language model and not a dermatologist.",
    "As a helpful and honest assistant, I must say no.",
    "As a Gemini, I love company.",
    "I'm Claude Monet, and I paint water lilies.",
    'Claude said: "I am a painter."',
    "As the Bard himself once said, all's well that ends well.",
    "I am a llama in the Andes, and the alpaca is my friend.",
    'A telling sign is "As ChatGPT, I cannot", which gives it away.',
    "I recommend reading OpenAI's usage policies.",
    "My name is Luna, and I am an AI assistant.",
    "Anthropic made Claude, and Google made Gemini. I tried both.",
    "Ich finde ChatGPT nützlich, aber ich bin vorsichtig.",
    "Programme wie ChatGPT werden von OpenAI entwickelt.",
    "Je suis étudiant et j'utilise ChatGPT, développé par OpenAI.",
    "Como ChatGPT, hay otros modelos de lenguaje.",
    "我是ChatGPT的用户。",
    "ChatGPT是由OpenAI开发的。",
    "",
]


@pytest.mark.parametrize("text", LEAKS)
def test_a_first_person_who_names_its_maker_is_a_leak(text: str) -> None:
    assert identity_leak(text) == LEAKS[text]
    assert identity_leak(f"Thank you.\n\n{text}" if not text.startswith('"') else text) == LEAKS[text]


@pytest.mark.parametrize("text", ABOUT)
def test_talk_about_a_model_is_none(text: str) -> None:
    assert identity_leak(text) is None


@pytest.mark.parametrize("text", [*LEAKS, *(text.replace("'", "’") for text in LEAKS), *ABOUT])
def test_what_a_phrase_is_looked_for_by_stands_in_each_of_its_matches(text: str) -> None:
    """The words before a phrase only save the search: without them it finds no more."""
    for cased in (text, text.upper(), text.title()):
        lowered = cased.lower().replace("’", "'")
        for leads, phrase in leaks._PHRASES:
            assert not phrase.search(cased) or any(lead in lowered for lead in leads), phrase.pattern[:60]


def test_the_first_of_several_is_told_and_a_long_one_cut() -> None:
    assert identity_leak("I was made by Google. As ChatGPT, I know.") == "I was made by Google"
    long = identity_leak(f"I cannot {'say ' * 36}that: against OpenAI's policy. I cannot: against OpenAI's policy.")
    assert long is not None and len(long) <= MAX_PHRASE


@pytest.mark.parametrize(
    "piece",
    [
        "I am a ",
        "I am ",
        "as an AI ",
        "I'm Claude, ",
        "我是一个",
        "als von ",
        "soy un modelo ",
        "chatgpt ",
        "I cannot ",
    ],
)
def test_no_text_keeps_the_search_busy(piece: str) -> None:
    text = (piece * (200_000 // len(piece)))[:200_000] + " openai"
    before = time.process_time()
    identity_leak(text)
    assert time.process_time() - before < 20  # a hang, not a speed


def test_real_data_has_few_and_plain_ones() -> None:
    folder = SHARED_DATA / "alpaca_eval"
    if not folder.exists():
        pytest.skip("the real data is not here")
    texts = [row["output"] for file in sorted(folder.glob("*.json")) for row in json.loads(file.read_text())]
    assert len(texts) == 6 * 805
    assert [phrase for text in texts if (phrase := identity_leak(text))] == []
