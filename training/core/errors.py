"""How a recipe says that it cannot go on; each kind has its exit code (see ``training.core.process``)."""


class UsageError(Exception):
    """Bad arguments or data: one line for the person who started the recipe, exit code 2."""


class TrainingError(Exception):
    """Training itself failed, with no way to go on: exit code 3."""


class StopRequested(Exception):
    """The recipe was asked to stop (SIGTERM or a lost lifeline): exit code 143."""


class StoppedBeforeStep(StopRequested):
    """Asked to stop before a step changed anything: the last finished step can still be saved."""
