"""What must be safe from the first day: log-in, sign-up, headers, cookies, debug, hosts, secrets."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.test import Client

from annotate.models import Project, User
from annotate.services.queue import next_leases
from tests.annotate.api.conftest import Cast
from tests.annotate.factories import make_task, make_user

REPOSITORY = Path(__file__).resolve().parents[3]
LOGIN = "/accounts/login/"


@pytest.fixture
def bob(db: None) -> User:
    return make_user("bob")


def log_in(browser: Client, username: str, password: str, **extra: Any) -> Any:
    return browser.post(LOGIN, {"login": username, "password": password}, **extra)


# --- log-in and sign-up ----------------------------------------------------------------------------------------------


def test_the_right_password_logs_in(bob: User) -> None:
    assert log_in(Client(), "bob", "bob").status_code == 302
    assert Session.objects.count() == 1


def test_after_five_wrong_passwords_even_the_right_one_waits(bob: User) -> None:
    for _ in range(5):
        page = log_in(Client(), "bob", "wrong")
        assert page.status_code == 200
        assert "Too many failed" not in page.content.decode()
    assert "Too many failed" in log_in(Client(), "bob", "wrong").content.decode()
    assert log_in(Client(), "bob", "bob").status_code == 200
    assert not Session.objects.exists()


def test_one_person_locked_out_does_not_lock_out_another_elsewhere(bob: User) -> None:
    make_user("dora")
    for _ in range(6):
        log_in(Client(), "bob", "wrong")
    assert log_in(Client(REMOTE_ADDR="10.0.0.2"), "dora", "dora").status_code == 302


def test_one_address_cannot_try_many_names(db: None) -> None:
    make_user("bob")
    for number in range(10):
        log_in(Client(), f"name{number}", "guess")
    assert log_in(Client(), "bob", "bob").status_code == 200
    assert not Session.objects.exists()


def test_a_forged_forwarded_address_does_not_help(bob: User) -> None:
    for number in range(6):
        log_in(Client(), "bob", "wrong", headers={"X-Forwarded-For": f"10.0.0.{number}"})
    assert log_in(Client(), "bob", "bob", headers={"X-Forwarded-For": "10.0.1.1"}).status_code == 200
    assert not Session.objects.exists()


def test_behind_our_own_proxy_each_visitor_has_an_address(bob: User, settings: Any) -> None:
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    for number in range(10):
        log_in(Client(), f"name{number}", "guess", headers={"X-Forwarded-For": "10.0.0.1"})
    assert log_in(Client(), "bob", "bob", headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 200
    assert log_in(Client(), "bob", "bob", headers={"X-Forwarded-For": "1.2.3.4, 10.0.0.1"}).status_code == 200
    assert log_in(Client(), "bob", "bob", headers={"X-Forwarded-For": "10.0.0.2"}).status_code == 302


def test_a_wrong_name_and_a_wrong_password_look_the_same(bob: User) -> None:
    def seen(name: str) -> str:
        page = log_in(Client(), name, "wrong").content.decode()
        return re.sub(r'value="[^"]*"|csrf\S*|\{"X-CSRFToken[^}]*\}', "", page).replace(name, "NAME")

    assert seen("bob") == seen("nobody")


def test_sign_up_is_closed(db: None) -> None:
    page = Client().get("/accounts/signup/")
    assert "password1" not in page.content.decode()
    form = {"username": "eve", "password1": "quite-a-long-one-7", "password2": "quite-a-long-one-7"}
    Client().post("/accounts/signup/", form)
    assert not User.objects.exists()


def test_the_address_after_log_in_stays_on_this_server(bob: User) -> None:
    answer = log_in(Client(), "bob", "bob", query_params={"next": "https://evil.example/"})
    assert answer.status_code == 302 and "evil" not in answer["Location"]


def test_log_out_needs_a_post(bob: User) -> None:
    browser = Client()
    log_in(browser, "bob", "bob")
    browser.get("/accounts/logout/")
    assert browser.get("/api/v1/me/").status_code == 200
    browser.post("/accounts/logout/")
    assert browser.get("/api/v1/me/").status_code == 401


@pytest.mark.parametrize("kind", ["imported", "example", "human"])
def test_whoever_is_not_active_cannot_log_in(db: None, kind: str) -> None:
    make_user("ghost", kind=kind, is_active=False)
    browser = Client()
    log_in(browser, "ghost", "ghost")
    assert browser.get("/api/v1/me/").status_code == 401


def test_a_session_ends_when_its_owner_is_deactivated(bob: User) -> None:
    browser = Client()
    log_in(browser, "bob", "bob")
    assert browser.get("/api/v1/me/").status_code == 200
    User.objects.update(is_active=False)
    assert browser.get("/api/v1/me/").status_code == 401


@pytest.mark.parametrize("note", ["a\\u0000b", "a\\ud800b"])
def test_what_postgres_cannot_hold_is_refused_by_the_pages_too(cast: Cast, project: Project, note: str) -> None:
    make_task(project)
    slot = next_leases(project=project, annotator=cast.bob)[0]
    browser = Client(raise_request_exception=False)
    browser.force_login(cast.bob)
    order = json.dumps([[str(pk)] for pk in slot.presented_order or []])
    body = f'{{"lease": "{slot.lease_id}", "ranking": {order}, "rationale": "%s"}}'
    send = {"content_type": "application/json", "headers": {"Idempotency-Key": "one"}}
    address = "/p/tales/rank/submit/"
    assert browser.post(address, body % note, **send).status_code == 422
    assert browser.post(address, body % "fine", **send).status_code == 200


# --- headers and cookies ---------------------------------------------------------------------------------------------


def policy_of(answer: Any) -> dict[str, list[str]]:
    parts = [part.split() for part in answer["Content-Security-Policy"].split(";") if part.strip()]
    return {words[0]: words[1:] for words in parts}


@pytest.mark.parametrize("path", [LOGIN, "/", "/api/docs/", "/api/v1/me/", "/healthz", "/no/such/page/"])
def test_the_policy_of_our_own_pages_allows_nothing_inline(cast: Cast, path: str) -> None:
    browser = Client()
    browser.force_login(cast.alice)
    policy = policy_of(browser.get(path))
    assert policy["default-src"] == ["'none'"] and policy["frame-ancestors"] == ["'none'"]
    assert policy["base-uri"] == ["'none'"] and policy["form-action"] == ["'self'"]
    for words in policy.values():
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:"} & set(words)
    assert policy["script-src"] == ["'self'"] and policy["style-src"] == ["'self'"]


def test_the_policy_is_looser_under_the_admin_alone(cast: Cast) -> None:
    browser = Client()
    browser.force_login(cast.sue)
    policy = policy_of(browser.get("/admin/"))
    assert "'unsafe-inline'" in policy["script-src"]
    assert policy["frame-ancestors"] == ["'none'"]


@pytest.mark.parametrize("path", [LOGIN, "/api/docs/"])
def test_our_pages_hold_nothing_that_the_policy_would_block(cast: Cast, path: str) -> None:
    browser = Client()
    if path != LOGIN:
        browser.force_login(cast.alice)
    page = browser.get(path).content.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)", page), "inline script"
    assert not re.search(r"<style|\sstyle=|\son\w+=", page), "inline style or handler"


def test_every_answer_has_the_safe_headers(cast: Cast) -> None:
    for path in (LOGIN, "/api/v1/me/", "/healthz"):
        answer = Client().get(path)
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["X-Frame-Options"] == "DENY"
        assert answer["Referrer-Policy"] == "same-origin"
        assert answer["Cross-Origin-Opener-Policy"] == "same-origin"


def test_the_session_cookie_cannot_be_read_by_scripts(bob: User) -> None:
    browser = Client()
    log_in(browser, "bob", "bob")
    cookie = browser.cookies["sessionid"]
    assert cookie["httponly"] and cookie["samesite"] == "Lax"


# --- settings, each in a process of its own --------------------------------------------------------------------------


def settings_in_a_fresh_process(home: Path, expression: str, **environment: str) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "DATABASE_URL", "REDIS_URL") if name in os.environ}
    finished = subprocess.run(
        [sys.executable, "-c", f"from webapp import settings as s; print({expression})"],
        env={**kept, "PLACKETT_HOME": str(home), **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_debug_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert settings_in_a_fresh_process(tmp_path, "s.DEBUG") == "False"
    assert settings_in_a_fresh_process(tmp_path, "s.DEBUG", PLACKETT_DEBUG="1") == "True"


def test_hosts_and_origins_are_named(tmp_path: Path) -> None:
    hosts = settings_in_a_fresh_process(tmp_path, "s.ALLOWED_HOSTS")
    assert hosts == "['127.0.0.1', '[::1]', 'localhost']"
    named = settings_in_a_fresh_process(
        tmp_path, "s.ALLOWED_HOSTS, s.CSRF_TRUSTED_ORIGINS", PLACKETT_HOST="0.0.0.0", PLACKETT_HOSTS="rank.example"
    )
    assert "'rank.example'" in named and "http://rank.example:8000" in named
    assert "*" not in named and "0.0.0.0" not in named


def test_cookies_are_secure_behind_tls(tmp_path: Path) -> None:
    expression = "s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_HSTS_SECONDS > 0"
    assert settings_in_a_fresh_process(tmp_path, expression) == "False False False"
    assert settings_in_a_fresh_process(tmp_path, expression, PLACKETT_TLS="1") == "True True True"


def test_the_secret_key_is_made_once_and_kept_to_oneself(tmp_path: Path) -> None:
    first = settings_in_a_fresh_process(tmp_path, "s.SECRET_KEY")
    assert len(first) >= 50 and first == settings_in_a_fresh_process(tmp_path, "s.SECRET_KEY")
    kept = tmp_path / "secret-key"
    assert kept.read_text() == first
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    other = tmp_path / "other"
    assert settings_in_a_fresh_process(other, "s.SECRET_KEY") != first


def test_the_deployment_check_finds_nothing(tmp_path: Path) -> None:
    """Django's own list, behind TLS, but for what only the owner of the domain can decide: whether the proxy redirects
    (W008), and whether strict transport holds for all subdomains (W005) and in browsers' lists (W021)."""
    # The browser tests allow the ORM beside Playwright's event loop; a deployment does not.
    own = {name: value for name, value in os.environ.items() if name != "DJANGO_ALLOW_ASYNC_UNSAFE"}
    finished = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        env={
            **own,
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            "PLACKETT_HOME": str(tmp_path),
            "PLACKETT_TLS": "1",
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    found = set(re.findall(r"\((\w+\.[EW]\d+)\)", finished.stdout + finished.stderr))
    assert found == {"security.W005", "security.W008", "security.W021"}


def test_no_secret_is_written_into_the_code() -> None:
    files = [path for app in ("annotate", "training", "webapp") for path in (REPOSITORY / app).rglob("*.py")]
    assert len(files) > 50
    told = re.compile(r"""(SECRET_KEY|PASSWORD|password)\s*=\s*f?["'](?!password["'])[^"'{]+["']""")
    found = [f"{path.name}: {hit.group()}" for path in files for hit in told.finditer(path.read_text())]
    assert found == []


def test_passwords_are_hashed_by_django_in_production(tmp_path: Path) -> None:
    assert settings_in_a_fresh_process(tmp_path, "hasattr(s, 'PASSWORD_HASHERS')") == "False"
    assert django_settings.PASSWORD_HASHERS, "the tests alone use a quick hash"
