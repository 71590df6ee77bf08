"""Who asks."""

from typing import Any

from rest_framework import serializers

from annotate.api.shapes.projects import MineShape


class MembershipRow(MineShape):
    project = serializers.CharField(help_text="Slug.")


class MeAnswer(serializers.Serializer[Any]):
    """Who asks, and what for."""

    username = serializers.CharField()
    kind = serializers.CharField()
    superuser = serializers.BooleanField()
    scopes = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="Of the token; null for a session, which has all."
    )
    expires_at = serializers.DateTimeField(allow_null=True, help_text="Of the token.")
    memberships = MembershipRow(many=True)
