"""Pools of real text that stand on any machine: Python's own library, its docs, its licences."""

import ast
import functools
import importlib
import sysconfig
from pathlib import Path

import numpy as np

STDLIB = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = ("asyncio", "email", "unittest", "multiprocessing", "encodings", "importlib")


def chunks(text, size=400):
    return [text[i : i + size] for i in range(0, len(text) - size // 2, size)]


@functools.cache
def genres():
    """Texts of 400 characters by genre: source code, docstrings, language reference, licences."""
    code, docstrings = [], []
    for file in sorted(STDLIB.glob("*.py")):
        source = file.read_text(errors="ignore")
        code += chunks(source)[:40]
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                text = ast.get_docstring(node) or ""
                docstrings += chunks(text) or ([text] if len(text) > 80 else [])
    topics = importlib.import_module("pydoc_data.topics").topics
    reference = [chunk for name in sorted(topics) for chunk in chunks(topics[name])]
    return {"code": code[:3000], "docstrings": docstrings[:2000], "reference": reference}


@functools.cache
def packages():
    """Source code of 400 characters by package."""
    out = {}
    for name in PACKAGES:
        files = sorted((STDLIB / name).rglob("*.py"))
        out[name] = [c for file in files for c in chunks(file.read_text(errors="ignore"))][:1500]
    return {name: texts for name, texts in out.items() if len(texts) >= 300}


def pool_of(kinds, target, n_target=100, seed=0):
    """Texts of the pool, whether each is of the target's kind, and target texts kept out of it."""
    rng = np.random.default_rng(seed)
    own = kinds[target]
    held = set(rng.choice(len(own), n_target, replace=False).tolist())
    texts, labels = [], []
    for name, all_texts in kinds.items():
        some = [t for i, t in enumerate(all_texts) if name != target or i not in held]
        texts += some
        labels += [name == target] * len(some)
    order = rng.permutation(len(texts))
    labels = np.array(labels)[order]
    return [texts[i] for i in order], labels, [own[i] for i in sorted(held)]
