"""Tokens of the API, for the person whose they are."""

from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import NotFound
from annotate.models import ApiToken, Role, User
from annotate.selectors.access import may_create_projects
from annotate.selectors.projects import RANK

#: What find_token of services.tokens lets in.
USABLE = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=Now()))
ENDED_SHOWN = 20


def tokens_of(user: User) -> list[ApiToken]:
    """The user's tokens, each with `usable`: those that work, the newest first, then the last 20 that ended."""
    own = ApiToken.objects.filter(user=user).annotate(usable=ExpressionWrapper(USABLE, output_field=BooleanField()))
    newest = own.order_by("-pk")
    return [*newest.filter(USABLE), *newest.exclude(USABLE)[:ENDED_SHOWN]]


def usable_tokens(user: User) -> QuerySet[ApiToken]:
    """Those of the user's tokens that work."""
    return ApiToken.objects.filter(USABLE, user=user)


def get_token_for(user: User, token_id: int) -> ApiToken:
    """A token of the user's own.

    Raises:
        NotFound: no such token, or somebody else's.
    """
    found = ApiToken.objects.filter(pk=token_id, user=user).first()
    if found is None:
        raise NotFound(_("There is no such token."))
    return found


def scopes_open_to(user: User) -> set[ApiToken.Scope]:
    """The scopes in which the user may do anything at all, as their roles are now (docs/roles.md)."""
    scope = ApiToken.Scope
    if user.is_superuser:
        return set(scope)
    memberships = list(user.memberships.filter(deactivated_at=None).values_list("role", "engineer"))
    found = {scope.READ}
    if any(RANK[role] >= RANK[Role.ANNOTATOR] for role, _engineer in memberships):
        found.add(scope.ANNOTATE)
    if any(engineer for _role, engineer in memberships):
        found |= {scope.WRITE, scope.TRAIN}
    if may_create_projects(user) or any(role == Role.MANAGER for role, _engineer in memberships):
        found.add(scope.WRITE)
    return found
