import sys

import pytest

from dpdq._optional import is_torch, require
from dpdq.errors import MissingDependencyError


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        MissingDependencyError, match=r'the cluster needs ray: pip install "dpdq\[ray\]"'
    ):
        require("ray", "the cluster")
    with pytest.raises(ImportError, match="needs no_such_package: pip install no_such_package"):
        require("no_such_package")


def test_a_broken_install_raises_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        require("broken_package")


def test_is_torch_never_imports_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not is_torch(1.0)
    assert "torch" not in sys.modules


def test_is_torch_knows_a_tensor():
    torch = pytest.importorskip("torch")
    assert is_torch(torch.zeros(2))
