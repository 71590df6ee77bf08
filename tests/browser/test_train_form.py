"""The form that starts a run, with its script: a hub's name is asked for where the hub was chosen."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Role, User
from tests.annotate.factories import make_project, make_user
from tests.training.django.helpers import make_snapshot
from training.models import Run

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]


def test_each_sampled_model_may_be_named_as_the_hub_has_it(page: Page, live_server: LiveServer, login: Login) -> None:
    project = make_project()
    make_snapshot(project)
    login(page.context, make_user("eve", project=project, role=Role.MANAGER, engineer=True))
    page.goto(f"{live_server.url}/p/{project.slug}/train/?kind=sample")
    names = ["Model of the hub", "Second model of the hub", "Third model of the hub", "Fourth model of the hub"]
    for name in names:
        expect(page.get_by_label(name, exact=True)).to_be_hidden()
    page.get_by_label("First model").select_option("tiny")
    page.get_by_label("Third model", exact=True).select_option("hub")
    expect(page.get_by_label(names[1], exact=True)).to_be_hidden()
    page.get_by_label(names[2], exact=True).fill("owner/third")
    page.get_by_role("button", name="Start the run").last.click()
    page.wait_for_url("**/runs/*/")
    run = Run.objects.get()
    assert {one.role: one.name for one in run.inputs.all()} == {"model_3": "owner/third"}
