"""Where texts made into HTML are kept, so that a withdrawal can forget what pages have made."""

import hashlib
from collections.abc import Iterable
from typing import Final

from django.conf import settings
from django.core.cache import cache

#: Part of the cache key: raise it whenever the same text would come out differently.
VERSION: Final = 3


def cache_key(text: str, *, language: str | None) -> str:
    """The key of a text's HTML. A few words of ours stand in it (“Table”), so it is made once per language."""
    return f"rendered:{VERSION}:{language}:{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"


def cache_keys(texts: Iterable[str]) -> list[str]:
    """The keys under which HTML of these texts may be kept, in every language."""
    return [cache_key(text, language=language) for text in texts for language, _name in settings.LANGUAGES]


def forget(keys: Iterable[str]) -> None:
    """Deletes HTML from the cache."""
    cache.delete_many(list(keys))
