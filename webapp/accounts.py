"""Accounts are made by people with the right to, never by strangers."""

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class ClosedAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Sign-up is closed: an administrator or the one-time link makes accounts."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
