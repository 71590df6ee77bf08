"""Webhooks never reach where they must not go: private addresses, names that change, certificates."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from annotate.errors import Invalid
from annotate.models import Project, User, Webhook
from annotate.services import outbox
from annotate.services.outbox import deliver_due
from annotate.services.webhooks import change_webhook, create_webhook
from tests.annotate.hooks import ALL, alice, due_now, hook, private_addresses_allowed, project, there
from tests.annotate.receivers import Receiver, receiver

pytestmark = pytest.mark.django_db
__all__ = ["alice", "hook", "private_addresses_allowed", "project", "there"]  # fixtures


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://127.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/",
        "http://93.184.215.14/",
    ],  # fmt: skip
)
def test_addresses_that_only_this_server_reaches_are_refused_when_saved(
    project: Project, alice: User, settings: Any, url: str
) -> None:
    settings.WEBHOOK_PRIVATE = False
    with pytest.raises(Invalid) as refused:
        create_webhook(project=project, by=alice, url=url, events=ALL)
    assert set(refused.value.fields) == {"url"}
    assert not Webhook.objects.exists()


def test_they_are_refused_again_when_sent_and_the_checked_address_is_the_one_connected_to(
    project: Project, hook: Webhook, there: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def rebinding(host: str, *args: Any, **options: Any) -> Any:
        """A name that is public when it is checked, and this machine ever after."""
        if host != "rebinding.example":
            return real(host, *args, **options)
        asked.append(host)
        return real("127.0.0.1" if len(asked) > 1 else "93.184.215.14", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    settings.WEBHOOK_PRIVATE = False
    port = there.url.split(":")[2].split("/")[0]
    change_webhook(webhook=hook, by=hook.created_by, url=f"https://rebinding.example:{port}/")
    delivery = outbox.send_test(webhook=hook)
    deliver_due()
    delivery.refresh_from_db()
    assert not there.told and "private address" in delivery.problem
    # Without the check at all the name would lead here once more: the connection asks no resolver.
    settings.WEBHOOK_PRIVATE, asked[:] = True, ["once"]
    Webhook.objects.update(url=f"http://rebinding.example:{port}/")
    due_now()
    deliver_due()
    assert len(there.told) == 1 and len(asked) == 2
    assert there.told[0].headers["Host"] == f"rebinding.example:{port}"


def test_tls_checks_the_name_not_the_address(hook: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", "/CN=good.example", "-addext", "subjectAltName=DNS:good.example", "-days", "2"]
    subprocess.run([*names, *named, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *args, **named: real("127.0.0.1", *args, **named))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiver(tls=(certificate, key)) as there:
        port = there.url.split(":")[2].split("/")[0]
        for host in ("good.example", "other.example"):
            Webhook.objects.update(url=f"https://{host}:{port}/")
            delivery = outbox.send_test(webhook=hook)
            due_now()
            deliver_due()
    delivery.refresh_from_db()
    assert len(there.told) == 1 and there.told[0].headers["Host"] == f"good.example:{port}"
    assert "certificate is not trusted" in delivery.problem
