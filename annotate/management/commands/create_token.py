"""Makes an API token from the command line."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from annotate.errors import Invalid
from annotate.models import ApiToken, User
from annotate.services.tokens import create_token


class Command(BaseCommand):
    help = "Make an API token for a user and print it. It is shown this once; only its SHA-256 is kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", required=True, help="What the token is for, to tell it from others.")
        parser.add_argument(
            "--scopes",
            required=True,
            help=f"Comma-separated, out of {', '.join(ApiToken.Scope.values)}. "
            "What the user may not do, the token may not do either.",
        )
        parser.add_argument("--days", type=int, help="Days until it expires. Without: never.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"there is no user {options['username']!r}")
        days: int | None = options["days"]
        try:
            _, secret = create_token(
                user=user,
                name=options["name"],
                scopes=[scope.strip() for scope in options["scopes"].split(",") if scope.strip()],
                expires_at=None if days is None else timezone.now() + timedelta(days=days),
            )
        except Invalid as refused:
            raise CommandError("; ".join(refused.fields.values()) or refused.message) from None
        self.stdout.write(secret)
