"""Prints the address at which the first administrator names themselves."""

from typing import Any

from django.core.management.base import BaseCommand
from django.urls import reverse

from annotate.errors import Conflict
from annotate.services.first_admin import make_first_admin_link


class Command(BaseCommand):
    help = (
        "Print the path of a link that makes the first administrator. It works once, for 24 hours, and only while "
        "there is no superuser; earlier links stop working. If there is a superuser already, stdout stays empty."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            secret = make_first_admin_link()
        except Conflict as refused:
            self.stderr.write(refused.message)
            return
        self.stdout.write(reverse("first-admin", args=[secret]))
