"""The models that a run starts from and reads: how they are named, and which of them may be what."""

from dataclasses import dataclass, field

from django.db.models import Q
from django.utils.translation import gettext as _

from annotate.models import Project
from training import base_models
from training.models import ModelVersion, Run, RunInput
from training.selectors import base_version_for, hold_version, run_to_build_on
from training.services.run_settings import EVALUATE_POLICY, EVALUATE_REWARD, INPUTS, OTHER_MODELS, Role, recipe_of

BASE = "base_model"


@dataclass(frozen=True)
class Named:
    """A model as it was named, and what that is: an entry of the registry, or the run that is to make it."""

    name: str
    version: ModelVersion | None = None
    run: Run | None = None


@dataclass
class Inputs:
    """All models of a run by what they are to it (``base_model``, or a role of RunInput), and what is wrong."""

    named: dict[str, Named] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def awaited(self) -> list[Run]:
        """The runs whose models are still to be made."""
        return [one.run for one in self.named.values() if one.run is not None and one.version is None]


def checked_inputs(project: Project, kind: str, names: dict[str, str]) -> Inputs:
    """Look up every model that a run of this kind is given; to be called in a transaction.

    Locks the rows of the models, against their deletion, and of the runs that are to make some.

    Args:
        names: by ``base_model`` or a role of RunInput; see training.base_models for how models are called.
    """
    found = Inputs()
    recipe = recipe_of(kind, names)
    for role, name in names.items():
        if role != BASE and role not in INPUTS.get(recipe, ()):
            found.faults[role] = _("Runs of this kind read no such model.")
            continue
        one = _look_up(project, name)
        if isinstance(one, str):
            found.faults[role] = one
        elif _kind_of(one) not in (None, wanted := _wanted(recipe, role)):
            found.faults |= _mismatch(recipe, role, wanted)
        else:
            found.named[role] = one
    found.faults |= _same_models(recipe, found)
    return found


def _wanted(recipe: str, role: str) -> str:
    """Which kind of model a run of the recipe takes in a role."""
    if role == BASE:
        return ModelVersion.Kind.REWARD if recipe == EVALUATE_REWARD else ModelVersion.Kind.POLICY
    return ModelVersion.Kind.REWARD if role in (Role.REWARD, Role.JUDGE) else ModelVersion.Kind.POLICY


def _mismatch(recipe: str, role: str, wanted: str) -> dict[str, str]:
    """What is wrong where a model of the other kind stands in a role. Which kind of evaluation it is was told by the
    baseline alone, so there the fault is that there is one, or none."""
    if role == BASE and recipe == EVALUATE_POLICY:
        return {Role.BASELINE: _("A reward model is compared with people, not with a baseline: name none.")}
    if role == BASE and recipe == EVALUATE_REWARD:
        return {Role.BASELINE: _("A policy is compared with another: name that one, and a judge.")}
    if wanted == ModelVersion.Kind.POLICY:
        return {role: _("This starts from a policy, not from a reward model.")}
    return {role: _("This is a policy; a reward model is needed here.")}


def _same_models(recipe: str, found: Inputs) -> dict[str, str]:
    """What is wrong with models that are the same."""
    reward, judge = found.named.get(Role.REWARD), found.named.get(Role.JUDGE)
    if reward and judge and _is_same(reward, judge):
        return {Role.JUDGE: _("A judge is never trained against: name another than the reward model.")}
    if recipe != Run.Kind.SAMPLE:
        return {}
    asked = [(role, found.named[role]) for role in (BASE, *OTHER_MODELS) if role in found.named]
    return {
        role: _("This model is sampled already; ask for more samples instead.")
        for place, (role, one) in enumerate(asked)
        if any(_is_same(one, before) for _role, before in asked[:place])
    }


def _is_same(one: Named, other: Named) -> bool:
    return one.name == other.name or (one.version is not None and one.version == other.version)


def _look_up(project: Project, name: str) -> Named | str:
    """The model, or what is wrong with the name."""
    if (version_id := base_models.registry_id(name)) is not None:
        version = base_version_for(project=project, version_id=version_id)
        if version is None or not hold_version(version.pk):
            return _("There is no such model in the registry of this project.")
        return Named(name, version)
    if (run_id := base_models.run_id(name)) is not None:
        run = run_to_build_on(project=project, run_id=run_id)
        version = _made_by(run_id)
        if run is None or (version is not None and not hold_version(version.pk)):
            return _("There is no such run in this project, or it makes no model any more.")
        return Named(name, version, run)
    return base_models.name_fault(name) or Named(name)


def _kind_of(one: Named) -> str | None:
    """Policy or reward model; None for a folder or a hub's model, of which the recipe will tell."""
    if one.version is not None:
        return one.version.kind
    if one.run is not None:
        return ModelVersion.Kind.REWARD if one.run.kind == Run.Kind.REWARD else ModelVersion.Kind.POLICY
    return ModelVersion.Kind.POLICY if one.name in base_models.BUILT_IN else None


def settle_inputs(run: Run) -> bool:
    """Fill in the models that runs have made by now; whether none is awaited any more."""
    if (made_by := base_models.run_id(run.base_model)) is not None and run.base_version is None:
        run.base_version = _made_by(made_by)
        run.save(update_fields=["base_version"])
        if run.base_version is None:
            return False
    for one in RunInput.objects.filter(run=run, version=None):
        if (made_by := base_models.run_id(one.name)) is not None:
            one.version = _made_by(made_by)
            one.save(update_fields=["version"])
            if one.version is None:
                return False
    return True


def is_any_deleted(run: Run) -> bool:
    """Whether the files of a model that the run reads were deleted from the registry."""
    read = Q(runs_from_it=run) | Q(runs_that_read_it__run=run)
    return ModelVersion.objects.filter(read, deleted_at__isnull=False).exists()


def _made_by(run_id: int) -> ModelVersion | None:
    return ModelVersion.objects.filter(run_id=run_id, deleted_at=None).first()
