"""Responses that give away who made them: “As ChatGPT, I …”, “Ich bin ein von OpenAI entwickeltes Sprachmodell”.

Pure: no Django, no I/O. A leak is a first person who names a model or its maker as itself. Talk about ChatGPT is none,
nor is “as an AI language model”, which every model says. What is found is shown to managers, so it is better to miss an
odd phrase than to mark texts that say nothing about themselves.
"""

import re
from collections.abc import Iterator
from itertools import islice

MAX_PHRASE = 200

# Patterns below are written for reading: <name> stands for the pattern of that name in _PARTS, and ' for ’ as well.


def _one_of(words: str) -> str:
    """A pattern for any of the patterns that stand between bars, on as many lines as they need."""
    return f"(?:{'|'.join(one.strip() for one in words.split('|'))})"


_PARTS = {
    # Names that nothing else has. (?-i:…): only spelt so.
    "model": _one_of(r"""
        chat ?gpt|instruct ?gpt|gpt-?[2345][\w.-]*|llama[ -]?[2345][\w.-]*|(?-i:LLaMA)[\w.-]*|(?-i:PaLM)|(?-i:LaMDA)
        |(?-i:OLMo)|vicuna|mixtral|qwen[\w.-]*|chatglm[\w.-]*|deepseek[\w.-]*|open[ -]?assistant|stablelm|wizardlm
        |smollm[\w.-]*|ernie bot|tongyi qianwen|bing chat|microsoft copilot|github copilot|google bard
        |claude[ -]\d[\w.]*|claude (?-i:Instant)|claude (?-i:Opus)|claude (?-i:Sonnet)|claude (?-i:Haiku)
        |gemini \d[\w.]*|gemini (?-i:Pro)|gemini (?-i:Ultra)|gemini (?-i:Nano)|gemini (?-i:Flash)
        |mistral-\d+b|mistral (?-i:Large)|mistral (?-i:Medium)|mistral (?-i:Small)|falcon-\d+b
        |通义千问|文心一言|智谱清言|讯飞星火|豆包
    """)
    + r"(?!'s\b|[ -](?:users?|fans?|experts?|developers?|plus|api|prompts?|plugins?)\b)",
    # Names that people, animals and stars have as well; they need to be called an AI.
    "homonym": r"(?-i:Claude|Gemini|Gemma|Bard|Alpaca|Koala|Falcon|Zephyr|Mistral|Llama|Grok|Copilot|Dolly|Kimi|Joi)",
    # Of those, the ones that answer to “As …, I”.
    "role": r"(?-i:Claude|Gemini|Bard|Grok|Copilot)",
    "maker": _one_of(r"""
        open ?ai(?![a-z])|anthropic|google deepmind|deepmind|google ai|google research|google|meta ai|meta|facebook ai
        |facebook|microsoft|mistral ai|mistral|alibaba cloud|alibaba|deepseek|xai(?![a-z])|laion|open[ -]?assistant
        |hugging ?face|eleuther ?ai|cohere|stability ai|lmsys|databricks|zhipu ai|zhipu|moonshot ai|moonshot|baidu
        |tencent|bytedance|nvidia|aleph alpha|(?:the )?technology innovation institute
        |谷歌|微软|百度|阿里巴巴|阿里云|阿里|腾讯|字节跳动|智谱|深度求索|月之暗面
    """)
    + r"(?!\w*'s\b)",
    "ai": r"\b(?:AI|A\.I\.|artificial intelligence|language model|chat[ -]?bot|virtual assistant|digital assistant)\b",
    "thing": "(?:ai|model|assistant|chatbot|bot|system|program)",
    "q": r"[\"“”„«»*_]{0,2}",
    # Where a clause begins, so that “tools such as ChatGPT, my favourite” and “the same as ChatGPT” are none.
    "clause": r"(?:(?<!\w )|(?<=\bbut )|(?<=\bthat )|(?<=\band ))\b",
    # What may stand between “I am” and the name: words that say what it is, none that makes it somebody else.
    "kind": r"(?:"
    + _one_of(r"""
        an?|the|your|just|only|also|actually|simply|ai|a\.i\.|artificial|intelligence|large|big|small|open|source|free
        |language|conversational|generative|text-based|multimodal|neural|network|machine|learning|model|chat|bot|chatbot
        |assistant|system|program|software|virtual|digital|helpful|friendly|harmless|honest|named|called|known|as|based
        |on|powered|by|version|variant|instance|of|that|which|who|is|was|has|been|and|i|am|i'm|my|name
    """)
    + r"\t?[,:–-]? +){0,14}?",
    "made": "(?:developed|created|made|trained|built|designed|programmed|fine-?tuned|produced|released|maintained)",
    "by": r"<made>(?: and <made>)? by (?:(?:the )?(?:team|researchers|engineers|people) (?:at|from|of) )?<q>",
    "macht": "(?:entwickelt|trainiert|geschaffen|erstellt)",
    "fait": "(?:développée?|créée?|entraînée?|conçue?|formée?)",
    "hecho": "(?:desarrollad|cread|entrenad|diseñad)[oa]",
    "做": "(?:公司|团队)?所?(?:开发|训练|创建|研发|创造|推出)",
    "个": r"(?:一个|一款|一种|名为|叫做|人工智能|AI|大型|语言|模型|助手|，|\s){0,8}",
}

# Each phrase stands after the words of which every one of its matches holds one, in lower case. A text without any of
# them is not searched for it: searching is hundreds of times as slow as looking for a word.
_ENGLISH = (
    ("i am|i'm|my name is|you can call me", r"\b(?:I am|I'm|my name is|you can call me) <kind><q><model>"),
    (
        "i am|i'm|my name is",
        r"\b(?:I am|I'm|my name is) <q><homonym>\b<q>(?=[,.!: ][^\n]{0,100}?(?:<ai>|<by><maker>))"
        r"(?:[^.!?\n]{0,100}?<by><maker>)?",
    ),
    ("as ", r"<clause>as <kind><q><model><q>,? (?:I\b|my\b|an? [^.!?\n]{0,100}?, I\b)"),
    ("as ", r"<clause>as <role>, (?:I\b|my\b|an? [^.!?\n]{0,60}?<ai>[^.!?\n]{0,60}?, I\b)"),
    (
        "i am|i'm|as ",
        r"\b(?:I am|I'm|as) <kind>(?:<homonym> ?,? <kind>)?<thing>,? (?:(?:that|which|who) (?:was|is|has been) )?"
        r"(?:<by>|from )<maker>",
    ),
    (
        "i was|i am|i'm|i have been|i've been",
        r"\b(?:I was|I am|I'm|I have been|I've been) (?!trained by (?:google|microsoft|facebook|meta))<by><maker>",
    ),
    (
        "i am|i'm|as ",
        r"\b(?:I am|I'm|as) (?:openai|anthropic|google|meta|microsoft|mistral|alibaba)'s (?:\w+ ){0,3}?<thing>\b",
    ),
    ("my creator|my developer|my maker", r"\bmy (?:creators?|developers?|makers?)(?:,| at| is| are) <maker>"),
    (" me", r"\b<maker>(?: has|, who|, which|, the company that)? <made> me\b"),
    (
        "openai's",
        r"\bI (?:can'?t|cannot|can not|won't|am unable|am not able)\b[^.!?\n]{0,150}\b(?:against|violates?|violating) "
        r"openai's [^.!?\n]{0,30}?(?:polic|guideline)\w+",
    ),
)
_GERMAN = (
    (
        "ich bin|ich heiße|mein name ist",
        r"\b(?:ich bin|ich heiße|mein Name ist) "
        r"(?:(?:ein|eine|das|der|die|nur|KI|Sprachmodell|KI-\w+|namens)[ ,]+){0,6}?<q><model>",
    ),
    ("als ", r"\bals <model>,? (?:\w+ ){0,2}?(?:ich|mir|mich)\b"),
    (
        "ich bin|als ",
        r"\b(?:ich bin|als) (?:(?:ein|eine|großes|KI-?) ){0,3}von <maker> (?:\w+ )?<macht>e?[srn]?\b",
    ),
    ("ich wurde|ich bin", r"\bich (?:wurde|bin) von <maker> (?:\w+ ){0,2}?<macht>\b"),
    (
        "ich bin|als ",
        r"\b(?:ich bin|als) (?:(?:ein|eine|großes) ){0,3}(?:\w{0,20}Sprachmodell|KI(?:-\w+)?),? "
        r"(?:(?:das|die|der) )?von <maker>",
    ),
)
_FRENCH = (
    (
        "je suis|je m'appelle|mon nom est",
        r"\b(?:je suis|je m'appelle|mon nom est) "
        r"(?:(?:une?|le|la|modèle|assistant|IA|de|langage|nommé|appelé)[ ,]+){0,8}?<q><model>",
    ),
    ("en tant que", r"\ben tant que <model>"),
    (
        "je suis|en tant qu",
        r"\b(?:je suis |en tant que |en tant qu')"
        r"(?:(?:une?|grand|modèle|assistant|IA|de|linguistique|d'IA|virtuel|langage)[ ,]+){0,8}?<fait> par <maker>",
    ),
    ("j'ai été", r"\bj'ai été <fait> par <maker>"),
)
_SPANISH = (
    (
        "soy|me llamo|mi nombre es",
        r"\b(?:soy|me llamo|mi nombre es) "
        r"(?:(?:una?|el|la|modelo|asistente|IA|de|lenguaje|llamad[oa]|virtual)[ ,]+){0,8}?<q><model>",
    ),
    ("como ", r"\bcomo <model>,? (?:no )?(?:puedo|tengo|soy|estoy|fui|debo|he|mi|mis|me)\b"),
    (
        "soy|como ",
        r"\b(?:soy|como) (?:(?:una?|gran|modelo|asistente|IA|de|lenguaje|inteligencia|artificial|virtual)[ ,]+){0,8}?"
        r"<hecho> por <maker>",
    ),
    ("fui|he sido", r"\b(?:fui|he sido) <hecho> por <maker>"),
)
_CHINESE = (
    ("我", r"我(?:是|叫|的名字是)<个><model>(?!的)"),
    ("作为", r"作为<个><model>\s*[，,]?\s*我"),
    ("我是|作为", r"(?:我是|作为)<个>由?\s*<maker>\s*<做>"),
    ("我由", r"我由\s*<maker>\s*<做>"),
)


def _compiled(phrase: str) -> re.Pattern[str]:
    while named := re.search(r"<(\w+)>", phrase):
        phrase = phrase.replace(named[0], _PARTS[named[1]])
    return re.compile(phrase.replace("'", "['’]"), re.IGNORECASE)


_PHRASES = tuple(
    (tuple(leads.split("|")), _compiled(phrase))
    for leads, phrase in (*_ENGLISH, *_GERMAN, *_FRENCH, *_SPANISH, *_CHINESE)
)
_OPENING = "\"“„«‘'`「『"
#: Texts without any of these, in lower case, are looked at no further: most are.
_STEM_WORDS = (
    "gpt|llama|palm|lamda|olmo|vicuna|mixtral|qwen|chatglm|deepseek|openassistant|open-assistant|open assistant"
    "|stablelm|wizardlm|smollm|ernie|qianwen|copilot|bard|claude|gemini|gemma|mistral|falcon|alpaca|koala|zephyr|grok"
    "|dolly|kimi|bing chat|openai|open ai|anthropic|deepmind|google|meta|facebook|microsoft|alibaba|xai|laion|hugging"
    "|eleuther|cohere|stability ai|lmsys|databricks|zhipu|moonshot|baidu|tencent|bytedance|nvidia|aleph alpha"
    "|innovation institute|通义|文心|智谱|讯飞|豆包|谷歌|微软|百度|阿里|腾讯|字节|深度求索|月之暗面"
)
_STEMS = tuple(_STEM_WORDS.split("|"))


def identity_leak(text: str) -> str | None:
    """Return the words in which the text says who made it, at most 200 characters; None if it does not.

    Of several the first is returned. Words that begin a quotation are somebody else's, unless the whole text is quoted.
    """
    lowered = text.lower()
    for stem in _STEMS:  # any(…) would take half as long again, for every response that is imported
        if stem in lowered:
            break
    else:
        return None
    first = min(_own_words(text, lowered.replace("’", "'")), key=lambda found: found.start(), default=None)
    return " ".join(first.group().split())[:MAX_PHRASE].rstrip(" .,-") if first else None


def _own_words(text: str, lowered: str) -> Iterator[re.Match[str]]:
    """The first match of each phrase that does not begin a quotation."""
    for leads, phrase in _PHRASES:
        if any(lead in lowered for lead in leads):
            yield from islice(filter(_is_own, phrase.finditer(text)), 1)


def _is_own(found: re.Match[str]) -> bool:
    return found.start() < 2 or found.string[found.start() - 1] not in _OPENING
