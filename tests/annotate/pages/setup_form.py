"""The set-up form as a browser would fill it in, and a project with a manager to set up."""

import html
import re
from typing import Any

import pytest
from django.test import Client

from annotate.models import Project, Role, User
from tests.annotate.factories import make_project, make_user
from tests.annotate.pages.test_pages import browser

HELPFUL = {"key": "helpful", "label": "Helpful", "kind": "likert", "low": 1, "high": 5, "required": False}
RULES = {
    "guidelines": "Be **fair**.\nAnd quick.\n",
    "criteria": [HELPFUL],
    "flags": [{"key": "wrong", "label": "Wrong"}, {"key": "rude", "label": "Rude"}],
}


@pytest.fixture
def project() -> Project:
    return make_project("tales", rules=RULES)


@pytest.fixture
def alice(project: Project) -> User:
    return make_user("alice", project=project, role=Role.MANAGER)


@pytest.fixture
def client(alice: User) -> Client:
    return browser(alice)


def whole_form(client: Client, **changed: Any) -> dict[str, str]:
    """What a browser would post from the form as it is loaded; None takes a name out, as an empty checkbox does."""
    return changed_form(loaded(client.get("/p/tales/setup/")), **changed)


def loaded(answer: Any) -> dict[str, str]:
    """The values in the form of a page, read from its HTML as a browser does."""
    page = answer.content.decode()
    form = page[page.index('<form id="setup"') : page.index("</form>", page.index('<form id="setup"'))]
    found: dict[str, str] = {}
    for tag in re.findall(r"<input [^>]*>", form):
        attributes = {name: html.unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag)}
        checkable = attributes.get("type") in {"checkbox", "radio"}
        if "name" in attributes and (not checkable or " checked" in tag):
            found[attributes["name"]] = attributes.get("value", "on" if checkable else "")
    for name, text in re.findall(r'<textarea name="([^"]+)"[^>]*>\n?(.*?)</textarea>', form, re.DOTALL):
        found[name] = html.unescape(text).replace("\n", "\r\n")
    for name, options in re.findall(r'<select name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        found[name] = re.findall(r'value="([^"]*)" selected', options)[0]
    found.pop("csrfmiddlewaretoken", None)
    found.pop("preset", None)
    return found


def changed_form(form: dict[str, str], **changed: Any) -> dict[str, str]:
    form = dict(form)
    for name, value in changed.items():
        name = name.replace("__", "-")
        if value is None:
            form.pop(name, None)
        else:
            form[name] = str(value)
    return form


def post(client: Client, form: dict[str, str], do: str = "review") -> Any:
    return client.post("/p/tales/setup/", form | {"do": do})


def text_of(answer: Any) -> str:
    """The words on a page, without its tags."""
    page = answer.content.decode()
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page[page.index("<main") :])))


def kept(answer: Any) -> dict[str, str]:
    """The hidden fields of a page that goes on to another step."""
    pairs = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', answer.content.decode())
    return {name: html.unescape(value) for name, value in pairs if name not in {"csrfmiddlewaretoken", "language"}}
