"""What can go wrong, as one tree.

    DpdqError                    everything this library raises on purpose
    ├── DataError                the data cannot be used as they are       (also ValueError)
    │   └── FileError            a file is missing, unreadable, unwritable (also OSError)
    ├── OptionError              an option has a value outside its list    (also ValueError)
    ├── InputTypeError           an argument has the wrong type            (also TypeError)
    ├── NotFittedError           a method was called before ``fit``        (also ValueError)
    ├── OverlapError             p lies where q has no data                (also ValueError)
    ├── ConvergenceError         an iteration did not reach its tolerance  (also RuntimeError)
    ├── WorkerError              workers die on a part of a job            (also RuntimeError)
    └── MissingDependencyError   an optional package is not installed      (also ImportError)

A message is one sentence that says what came, where, what was expected and what to do.
"""

__all__ = [
    "ConvergenceError",
    "DataError",
    "DpdqError",
    "FileError",
    "InputTypeError",
    "MissingDependencyError",
    "NotFittedError",
    "OptionError",
    "OverlapError",
    "WorkerError",
]


class DpdqError(Exception):
    """Base of every error that dpdq raises on purpose."""


class DataError(DpdqError, ValueError):
    """The data cannot be used as they are: shape, columns, types or values."""


class FileError(DataError, OSError):
    """A file is missing, unreadable, of an unknown kind, or cannot be written."""

    def __str__(self) -> str:
        # OSError would print "[Errno ...]" around two arguments; the sentence is the message.
        return str(self.args[0]) if self.args else ""


class OptionError(DpdqError, ValueError):
    """An option has a value outside its closed list or range."""


class InputTypeError(DpdqError, TypeError):
    """An argument has a type that this function does not take."""


class NotFittedError(DpdqError, ValueError):
    """A method that needs ``fit`` was called before it."""


class OverlapError(DpdqError, ValueError):
    """p lies where q has no data, so that no weighting of q can answer."""


class ConvergenceError(DpdqError, RuntimeError):
    """An iteration stopped before it reached its tolerance; what it had is no answer."""


class WorkerError(DpdqError, RuntimeError):
    """Every worker that took a part of a job died on it."""


class MissingDependencyError(DpdqError, ImportError):
    """An optional package is needed for this call and is not installed."""
