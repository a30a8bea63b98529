"""The two ways in which a command ends badly."""


class UserError(ValueError):
    """A mistake in what the user gave. The message says the value, what was expected and what to do. Exit code 2."""


class RunError(RuntimeError):
    """A run that could not go on: numbers that are not finite, a full disk, a vanished directory. Exit code 1."""
