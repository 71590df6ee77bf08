"""The one error of the stack: a sentence for a person, printed without a traceback."""


class StackError(Exception):
    """Something that the operator has to settle; the message is one line that says what and how."""
