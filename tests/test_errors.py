import pytest

import dpdq.errors as errors


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "DpdqError"])
def test_every_error_is_of_the_tree_and_of_its_builtin_kind(name):
    kind = getattr(errors, name)
    builtin = {
        "ConvergenceError": RuntimeError,
        "DataError": ValueError,
        "FileError": OSError,
        "InputTypeError": TypeError,
        "MissingDependencyError": ImportError,
        "NotFittedError": ValueError,
        "OptionError": ValueError,
        "OverlapError": ValueError,
        "WorkerError": RuntimeError,
    }[name]
    assert issubclass(kind, errors.DpdqError)
    assert issubclass(kind, builtin)
    assert str(kind("one sentence")) == "one sentence"


def test_a_file_error_prints_its_sentence_only():
    assert str(errors.FileError("file 'x' does not exist")) == "file 'x' does not exist"
    assert str(errors.FileError()) == ""
