"""What the shapes have in common. They check types and sizes; what an answer may hold is the services' business.

Those that only describe an answer exist for the OpenAPI document.
"""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

MAX_RESPONSES = 9
MAX_CRITERIA = 30


class Shape(serializers.Serializer[Any]):
    """A serializer that refuses keys it does not know: a misspelt `strenghts` must not be a silent loss."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := [str(name) for name in data if name not in self.fields]):
            raise serializers.ValidationError({name: ["There is no such field."] for name in unknown})
        return super().to_internal_value(data)


class MessageShape(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=["system", "user", "assistant"])
    content = serializers.CharField()


class Page(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True, help_text="`cursor` of the next page; null at the end.")
