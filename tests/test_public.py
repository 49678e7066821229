"""Public names: they load lazily, twice the same, and no module shadows a function."""

import importlib
import importlib.resources
import inspect
import pkgutil
import subprocess
import sys
import types

import pytest

import dpdq

ROOMS = ["dpdq"] + [
    f"dpdq.{module.name}"
    for module in pkgutil.iter_modules(dpdq.__path__)
    if module.ispkg and not module.name.startswith("_")
]


def names():
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            yield room, name


@pytest.mark.parametrize("room, name", list(names()))
def test_every_public_name_is_there_twice(room, name):
    module = importlib.import_module(room)
    first, second = getattr(module, name), getattr(module, name)
    assert first is second
    for found in pkgutil.walk_packages(module.__path__, room + "."):
        if not found.name.rsplit(".", 1)[1].startswith("_"):
            importlib.import_module(found.name)
    assert getattr(module, name) is first, "importing a submodule replaced a public name"
    if not isinstance(first, types.ModuleType):
        assert inspect.getdoc(first), f"{room}.{name} has no docstring"


@pytest.mark.parametrize("room", ROOMS)
def test_names_are_listed_and_stubs_agree(room):
    module = importlib.import_module(room)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError):
        _ = module.no_such_name
    if "__getattr__" not in vars(module):
        return  # imported as written: a type checker sees it without a stub
    stub = (importlib.resources.files(room) / "__init__.pyi").read_text()
    for name in module.__all__:
        assert f" {name} as {name}" in stub, f"{name} is missing from {room}/__init__.pyi"


def test_import_is_light():
    code = (
        "import sys, dpdq; "
        "heavy = {'sklearn', 'scipy', 'torch', 'pandas', 'polars', 'pyarrow', 'jinja2', 'rich', "
        "'typer', 'narwhals'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_quick_path_loads_no_scikit_learn():
    code = """
import sys
import numpy as np
import dpdq
rng = np.random.default_rng(0)
c = dpdq.compare(rng.normal(size=(300, 2)), rng.normal(size=(300, 2)), quick=True, random_state=0)
repr(c)
heavy = {'sklearn', 'torch', 'scipy.stats', 'ot'} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
