"""Every operation of the OpenAPI document with a token of each single scope: the one that it names, and no other."""

import re
import uuid
from typing import Any

import pytest
from rest_framework.test import APIClient

from annotate.models import ApiToken
from tests.annotate.api.conftest import Cast, token_client
from tests.annotate.api.test_roles import ROWS, names_aside
from tests.annotate.api.test_schema import DOCUMENT, OPERATIONS

SCOPES = tuple(ApiToken.Scope.values)
#: What is read, told by hand: a GET is `read` and nothing else is. The rest by what it is about.
TRAINED = re.compile(r"/(runs|models|pipelines|tries|checkpoints|promote|cancel|resume|estimate|cpu)/")
RANKED = re.compile(r"/(next|rankings|leases|revise)/")


def named_scope(method: str, path: str) -> str:
    """What the document says."""
    found = re.search(r"Scope of the token: `(\w+)`", DOCUMENT["paths"][path][method.lower()]["description"])
    assert found, path
    return found[1]


def expected_scope(method: str, path: str) -> str:
    """What it must be, by a rule that the code does not know."""
    if method == "GET":
        return "read"
    if path.endswith(("/send/", "/review/", "/withdraw/")):
        return "write"
    if RANKED.search(path):
        return "annotate"
    return "train" if TRAINED.search(path) else "write"


def test_the_document_names_the_scope_that_the_rule_and_the_table_of_roles_have() -> None:
    table = {(row.method, names_aside(row.path)): row.scope for row in ROWS if row.scope}
    told = {(method, path): named_scope(method, path) for method, path in OPERATIONS}
    assert len(told) > 50 and set(told.values()) == set(SCOPES)
    assert {one: scope for one, scope in told.items() if expected_scope(*one) != scope} == {}
    assert {one: scope for one, scope in told.items() if table[one[0], names_aside(one[1])] != scope} == {}


def ask(client: APIClient, method: str, path: str) -> Any:
    """The operation on things that do not exist: whether a scope fits is looked at before they are looked for."""
    kinds = {"lease": uuid.uuid4(), "slug": "none"}
    address = re.sub(r"\{(\w+)\}", lambda name: str(kinds.get(name[1], 2**40)), path)
    return getattr(client, method.lower())(address, None if method == "GET" else {})


@pytest.mark.parametrize("scope", SCOPES)
def test_a_token_of_one_scope_does_what_names_it_and_nothing_else(cast: Cast, scope: str) -> None:
    client, opened = token_client(cast.sue, (scope,)), set()
    for method, path in OPERATIONS:
        answer = ask(client, method, path)
        assert answer.status_code < 500, path
        if answer.status_code != 403 or answer.json()["error"]["code"] != "scope":
            opened.add((method, path))
    assert opened == {one for one in OPERATIONS if named_scope(*one) == scope}
