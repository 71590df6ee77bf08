"""What is scored, in tokens: the chat template's own text around a prompt and one response, and the pad token.

The text is exactly ``apply_chat_template(prompt + [assistant response])``. Its ids are those of the prompt's part (with
the generation prompt), then the response, then the template's own ending, each encoded apart and in that order, so
that all responses to a prompt share the very same prompt ids and sampled tokens can stand for a response.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.core.errors import UsageError
from training.core.records import Message, Response

PLAIN_TEMPLATE_NAME = "plackett-plain"
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{{ '### ' + message['role'] + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token or '' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\n### assistant:\n' }}{% endif %}"
)
NEW_PAD_TOKEN = "<|plackett_pad|>"

_PROBE_TEXT = "PROBE"


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's rendered text and ids, generation prompt included."""

    text: str
    ids: tuple[int, ...]


class ChatEncoder:
    """Encodes prompts and responses of one tokenizer with its chat template.

    Control tokens that stand inside texts are encoded as the plain text that they are; ``defused`` counts those texts.

    Raises:
        UsageError: the template cannot be used: rendering fails, the prompt's part is no prefix of the whole, or the
            tokenizer cannot encode a control token as plain text.
    """

    def __init__(self, tokenizer: Any, *, show_thinking: bool = False) -> None:
        self.tokenizer = tokenizer
        self.show_thinking = show_thinking
        self.defused = 0
        self.template_name = "the model's own"
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
            self.template_name = PLAIN_TEMPLATE_NAME
        self.control_tokens = control_tokens(tokenizer)
        self._control_pattern = re.compile("|".join(map(re.escape, sorted(self.control_tokens, key=len, reverse=True))))
        self._before, self._ending = self._probe()
        self._before_ids, self._ending_ids = self._ids(self._before), self._ids(self._ending)
        self._check_plain_encoding()

    @property
    def ending_ids(self) -> tuple[int, ...]:
        """What the template writes after a response."""
        return self._ending_ids

    def encode_prompt(self, prompt: Sequence[Message]) -> EncodedPrompt:
        """The prompt's part of what is scored."""
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        text = self._render(messages, generate=True)
        suspects = sum(self._holds_control(message.content) for message in prompt)
        if not suspects:
            return EncodedPrompt(text, self._ids(text))
        self.defused += suspects
        return EncodedPrompt(text, self._ids_with_plain_contents(messages, text))

    def encode_response(self, prompt: Sequence[Message], encoded: EncodedPrompt, response: Response) -> tuple[int, ...]:
        """The ids after the prompt's: the response and the template's ending."""
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        content = shown_text(response, show_thinking=self.show_thinking)
        whole = self._render([*messages, {"role": "assistant", "content": content}], generate=False)
        body = self._between(encoded.text, whole)
        self.defused += self._holds_control(body)
        return (*self._before_ids, *self._plain_ids(body), *self._ending_ids)

    def written_ids(self) -> set[int]:
        """Control ids that the template itself writes."""
        conversation = [{"role": role, "content": _PROBE_TEXT} for role in ("user", "assistant", "user")]
        texts = [self._render(conversation, generate=True), self._before, self._ending]
        written = {token for text in texts for token in self._control_pattern.findall(text) if token}
        return {self.control_tokens[token] for token in written}

    def _probe(self) -> tuple[str, str]:
        """The template's text right before and right after a response."""
        user = {"role": "user", "content": _PROBE_TEXT}
        prompt = self._render([user], generate=True)
        whole = self._render([user, {"role": "assistant", "content": _PROBE_TEXT}], generate=False)
        if not whole.startswith(prompt):
            raise UsageError("chat template: the prompt with its generation prompt is no prefix of the whole text")
        before, found, ending = whole[len(prompt) :].rpartition(_PROBE_TEXT)
        if not found:
            raise UsageError("chat template: it does not write the assistant's text")
        return before, ending

    def _between(self, prompt: str, whole: str) -> str:
        """What the template made of a response's text (most keep it, some strip it)."""
        rest = whole.removeprefix(prompt)
        start, end = len(self._before), len(rest) - len(self._ending)
        if not whole.startswith(prompt) or not rest.startswith(self._before) or not rest.endswith(self._ending):
            raise UsageError("chat template: the prompt with its generation prompt is no prefix of the whole text")
        return rest[start : max(start, end)]

    def _render(self, messages: list[dict[str, str]], *, generate: bool) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
        except Exception as error:  # templates raise what they like, with Jinja's own classes among it
            roles = ", ".join(message["role"] for message in messages)
            raise UsageError(f"chat template: it refuses the roles {roles} ({error})") from None
        return text

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    def _plain_ids(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _holds_control(self, text: str) -> bool:
        return bool(self.control_tokens) and self._control_pattern.search(text) is not None

    def _ids_with_plain_contents(self, messages: list[dict[str, str]], text: str) -> tuple[int, ...]:
        """As ``_ids(text)``, but only control tokens that the template wrote are control tokens.

        A tokenizer cuts the text at control tokens and encodes the stretches between them; so do we, with the
        template's own control tokens alone.
        """
        marks = [f"\ue000{number}\ue001" for number in range(len(messages))]
        marked = [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
        pieces = re.split("(\ue000[0-9]+\ue001)", self._render(marked, generate=True))
        contents = dict(zip(marks, (message["content"] for message in messages), strict=True))
        for adjust in (str, str.strip):
            if "".join(adjust(contents[piece]) if piece in contents else piece for piece in pieces) == text:
                break
        else:
            raise UsageError(
                "a prompt holds control tokens, and the chat template rewrites texts: cannot keep them apart"
            )
        ids: list[int] = []
        stretch = ""
        for piece in pieces:
            if piece in contents:
                stretch += adjust(contents[piece])
                continue
            position = 0
            for match in self._control_pattern.finditer(piece):
                ids += self._plain_ids(stretch + piece[position : match.start()])
                ids.append(self.control_tokens[match.group()])
                stretch, position = "", match.end()
            stretch += piece[position:]
        return (*ids, *self._plain_ids(stretch))

    def _check_plain_encoding(self) -> None:
        for token, token_id in self.control_tokens.items():
            if token_id in self._plain_ids(f"a{token}b"):
                raise UsageError(f"tokenizer: it cannot encode {token!r} as plain text")


def shown_text(response: Response, *, show_thinking: bool) -> str:
    """The assistant's text that is scored: with its thinking in front, in the usual tags, when that is shown."""
    if show_thinking and response.thinking:
        return f"<think>\n{response.thinking}\n</think>\n\n{response.text}"
    return response.text


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The tokenizer's special tokens by their text."""
    return {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}


def settle_pad_token(encoder: ChatEncoder, *, embedding_rows: int) -> int:
    """Give the tokenizer a pad token that no sequence can end with, and return its id.

    transformers pools a sequence at its rightmost id that is not pad, so pad must be a control token that neither the
    template writes nor generation stops at. The tokenizer's own is kept if it is one; else an unused special token
    takes its place; else the vocabulary grows by one (the id is then ``embedding_rows`` or more: resize the model).
    """
    tokenizer = encoder.tokenizer
    taken = encoder.written_ids() | {tokenizer.eos_token_id, tokenizer.bos_token_id}
    free = {token: token_id for token, token_id in encoder.control_tokens.items() if token_id not in taken}
    if tokenizer.pad_token in free:
        return int(tokenizer.pad_token_id)
    usable = [token for token, token_id in free.items() if token_id < embedding_rows]
    if usable:
        tokenizer.pad_token = min(usable, key=_pad_preference)
    else:
        tokenizer.add_special_tokens({"pad_token": NEW_PAD_TOKEN})
        encoder.control_tokens[NEW_PAD_TOKEN] = tokenizer.pad_token_id
    return int(tokenizer.pad_token_id)


def _pad_preference(token: str) -> tuple[int, str]:
    """Names made for it first, then reserved ones; ``<|endoftext|>`` before tokens with a use in some corpus."""
    order = ("pad", "reserved", "unused", "endoftext", "unk")
    return next((place for place, word in enumerate(order) if word in token.lower()), len(order)), token


def stop_ids(encoder: ChatEncoder, generation_config: Any = None) -> frozenset[int]:
    """What ends a sampled response: the end-of-sequence tokens of tokenizer and generation config, and the control
    token that the template writes right behind a response."""
    named = getattr(generation_config, "eos_token_id", None)
    found = {encoder.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    control = set(encoder.control_tokens.values())
    found.update(token for token in encoder.ending_ids[:1] if token in control)
    return frozenset(token for token in found if token is not None)
