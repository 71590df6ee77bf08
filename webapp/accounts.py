"""Accounts are made by people with the right to, never by strangers."""

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest
from django.utils.translation import gettext_noop

#: Texts of allauth that people meet here. Named here, they stand in our catalogues, which come before allauth's: there
#: German says “du”, and has another word for the user name.
FROM_ALLAUTH = (
    gettext_noop("Username"),
    gettext_noop("Password"),
    gettext_noop("Remember Me"),
    gettext_noop("Current Password"),
    gettext_noop("New Password"),
    gettext_noop("New Password (again)"),
    gettext_noop("Please type your current password."),
    gettext_noop("You must type the same password each time."),
    gettext_noop("The username and/or password you specified are not correct."),
    gettext_noop("Too many failed login attempts. Try again later."),
    gettext_noop("Be patient, you are sending too many requests."),
    gettext_noop("Password successfully changed."),
    gettext_noop("You have signed out."),
)


class ClosedAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Sign-up is closed: an administrator or the one-time link makes accounts."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
