"""Texts of the pool that compress well beside the target: compressors as models of text.

With C(x | y) the bytes that a compressor needs for x when it has seen y, and T the target,

    NCD(x, t) = (C(xt) - min(C(x), C(t))) / max(C(x), C(t))
    "ncd"         u(x) = mean over t in T of 1 - NCD(x, t)              as published
    "dictionary"  u(x) = (C(x | pool) - C(x | T)) / C(x | pool)         corrected for length

The published alignment scores length first. Where C(x) and C(t) differ by a factor s, 1 - NCD is at
most 1/s whatever the texts say, and a header of 18 bytes lets short texts look alike. It also asks
for a compression of every pair. The dictionary form compares two descriptions of the same text, by
what the target and by what as much of the pool have taught the compressor: plain or repetitive
text gains by both, length divides out, and a text is compressed twice, not once a target text.
Long texts are cut into pieces of 4 KiB, so that no text becomes its own dictionary.

A compressor sees repeated strings of four bytes and more. It finds the same phrases as n-grams do
and is blunter about single words: on texts of equal length `dpdq.select.NGramRatio` is faster and
as a rule selects better, and this is a second opinion that knows no tokens. Where lengths vary by
orders of magnitude it is the one of the two whose score hardly depends on them (of texts of 100 to
3,000 characters length explains 0.2 % of it, 48 % of the n-grams' and 81 % of the published one).
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pyarrow as pa

from dpdq._optional import require
from dpdq._random import row_keys
from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.select._base import Utility
from dpdq.select.ngrams import as_texts

__all__ = ["CompressionAlignment"]

_PIECE = 4_096
_ZSTD_BYTES = 112_640  # the size that zstd's own tool gives a dictionary
_ZSTD_TEACHING = 8_000_000
_ZSTD_SHARE = 0.5  # of the teaching text that becomes the dictionary
_ZLIB_BYTES = 32_000  # deflate looks back 32 KiB
_GZIP_HEADER = 18


def _bytes_of(texts: pa.Array) -> list[memoryview]:
    """The bytes of each text, without copying; none for a missing one."""
    filled: Any = texts.fill_null("") if texts.null_count else texts
    _, offsets, data = filled.buffers()
    n = len(filled)
    if n == 0 or data is None:
        return [memoryview(b"")] * n
    bounds = np.frombuffer(offsets, np.int64)[filled.offset : filled.offset + n + 1].tolist()
    raw = memoryview(data)
    return [raw[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def _some_texts(texts: list[memoryview], budget: int) -> list[bytes]:
    """Texts in an order by chance, of ``budget`` bytes together."""
    taken, room = [], budget
    for row in np.argsort(row_keys(0, len(texts), 0)):
        if room <= 0:
            break
        piece = bytes(texts[row][:room])
        if piece:
            taken.append(piece)
            room -= len(piece)
    return taken


def _deflated(level: int, dictionary: bytes = b"") -> Callable[[bytes | memoryview], int]:
    """Size of a raw deflate stream, after a preset dictionary."""
    options = (level, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY)
    start = zlib.compressobj(*options, dictionary) if dictionary else zlib.compressobj(*options)

    def size(text: bytes | memoryview) -> int:
        stream = start.copy()
        return len(stream.compress(text)) + len(stream.flush())

    return size


def _zstandard(level: int, dictionary: bytes, trained: bool) -> Callable[[Any], int]:
    """Size of a zstd frame without optional fields, with a dictionary."""
    zstandard: Any = require("zstandard", "codec 'zstd'")
    kind = zstandard.DICT_TYPE_FULLDICT if trained else zstandard.DICT_TYPE_RAWCONTENT
    known = zstandard.ZstdCompressionDict(dictionary, dict_type=kind)
    known.precompute_compress(level=level)
    compress = zstandard.ZstdCompressor(
        level=level,
        dict_data=known,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    ).compress
    return lambda text: len(compress(text))


def _sizes_of(texts: list[memoryview], size: Callable[[Any], int]) -> np.ndarray:
    """Compressed size of each text, long ones in pieces; 0 for an empty one."""
    out = np.zeros(len(texts))
    for row, text in enumerate(texts):
        if 0 < len(text) <= _PIECE:
            out[row] = size(text)
        elif len(text):
            out[row] = sum(size(text[at : at + _PIECE]) for at in range(0, len(text), _PIECE))
    return out


def _trained(sides: list[list[bytes]], size: int, level: int) -> tuple[list[bytes], bool]:
    """A dictionary of each side, trained on both or, of too little text, plain on both."""
    zstandard: Any = require("zstandard", "codec 'zstd'")
    try:
        made = [zstandard.train_dictionary(size, texts, level=level) for texts in sides]
    except zstandard.ZstdError:
        return [b"\n".join(texts)[:_ZSTD_BYTES] for texts in sides], False
    return [each.as_bytes() for each in made], True


class CompressionAlignment(Utility):
    """How much better the target than the pool helps to compress a text.

        u(x) = (C(x | pool) - C(x | target)) / C(x | pool)      "dictionary"
        u(x) = mean over target texts t of 1 - NCD(x, t)        "ncd", as published

    With ``"ncd"`` the texts that are about as long as the target's come first, whatever they say;
    it is there to be compared with. ``"dictionary"`` is corrected for length but blunt for short
    texts: in sentences of ten words little repeats, and precision falls to half of what
    `NGramRatio` reaches above chance.

    Parameters
    ----------
    method
        ``"dictionary"`` or ``"ncd"``.
    codec
        Of ``"dictionary"``: ``"zstd"`` (needs zstandard: fast), ``"zlib"`` (standard library: ten
        times slower, and better: mean precision 0.85 to 0.81 over twelve pools), or ``"auto"``,
        zstd where it is installed. The two rank differently, so name one where numbers must be
        comparable; ``codec_`` says which was used.
    level
        Compression level; ``None`` is 3 for zstd and 6 for zlib and gzip.

    Attributes
    ----------
    codec_
        ``"zstd"``, ``"zlib"``, or ``"gzip"`` with ``"ncd"``.
    dictionary_q_, dictionary_p_
        What pool and target have taught, equally many bytes of text on either side.
    target_
        With ``"ncd"``, the target's texts.

    Notes
    -----
    Cost: O(bytes) time, about 60 MB/s with zstd and 6 MB/s with zlib, memory of the texts and a
    few numbers each; with ``"ncd"`` O(bytes of the pool times target texts).
    Held by: tests/select/test_compression.py::test_finds_hidden_targets_in_real_pools

    Changed from the paper: dictionaries in place of pairs, and the pool's own dictionary as the
    standard; ``"ncd"`` with gzip is the published formula (its code uses lz4).

    References
    ----------
    .. [M009] ZIP-FIT: Embedding-Free Data Selection via Compression-Based Alignment. Obbad, 2024,
       arXiv 2410.18194.

    Examples
    --------
    >>> from dpdq.select import CompressionAlignment, top_k
    >>> code = [f"for key in range({i}): print(key)" for i in range(40)]
    >>> prose = [f"The cat sat on mat number {i}." for i in range(40)]
    >>> model = CompressionAlignment(codec="zlib").fit(q=code[:30] + prose[:30], p=code[30:])
    >>> bool(top_k(model.utility(code[:30] + prose[:30]), n=30).rows.max() < 30)
    True
    """

    codec_: str

    def __init__(
        self, method: str = "dictionary", *, codec: str = "auto", level: int | None = None
    ) -> None:
        self.method = method
        self.codec = codec
        self.level = level

    def _chosen_codec(self) -> str:
        for name, value, known in (
            ("method", self.method, ("dictionary", "ncd")),
            ("codec", self.codec, ("auto", "zstd", "zlib")),
        ):
            if value not in known:
                choices = ", ".join(map(repr, known))
                raise OptionError(f"Unknown {name} {value!r}. Choose one of {choices}.")
        if self.method == "ncd":
            codec = "gzip"
        elif self.codec == "auto":
            codec = "zstd" if importlib.util.find_spec("zstandard") else "zlib"
        else:
            codec = self.codec
        low, high = (-7, 22) if codec == "zstd" else (1, 9)
        if self.level is not None and not low <= self.level <= high:
            raise OptionError(f"level is {self.level}; expected {low} to {high} for {codec}")
        return codec

    def fit(self, q: Any, p: Any) -> Self:
        """Learn a dictionary of the pool and one of the target.

        Parameters
        ----------
        q
            The pool's texts, or a sample of them: a list, array or column of strings.
        p
            The target's texts.

        Returns
        -------
        Self
            The utility.

        Raises
        ------
        DataError
            A side holds no text.
        InputTypeError
            An item is no text.
        MissingDependencyError
            ``codec="zstd"`` without zstandard.
        """
        vars(self).pop("_sizes", None)
        codec = self._chosen_codec()
        texts = [_bytes_of(as_texts(q, "q")), _bytes_of(as_texts(p, "p"))]
        totals = [sum(map(len, side)) for side in texts]
        for name, total in zip("qp", totals, strict=True):
            if total == 0:
                raise DataError(f"{name} holds no text: its texts are empty")
        self._level = self.level if self.level is not None else 3 if codec == "zstd" else 6
        if codec == "gzip":
            self.target_ = [bytes(text) for text in texts[1] if len(text)]
        else:
            most = _ZSTD_TEACHING if codec == "zstd" else _ZLIB_BYTES
            sides = [_some_texts(side, min(*totals, most)) for side in texts]
            if codec == "zstd":
                size = max(256, min(_ZSTD_BYTES, int(_ZSTD_SHARE * min(totals))))
                made, self._is_trained = _trained(sides, size, self._level)
            else:
                made = [b"\n".join(side)[:_ZLIB_BYTES] for side in sides]
            self.dictionary_q_, self.dictionary_p_ = made
        self.codec_ = codec
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Compressors do not pickle; they are built again from the dictionaries."""
        return {key: value for key, value in vars(self).items() if key != "_sizes"}

    def _compressors(self) -> tuple[Callable[[Any], int], Callable[[Any], int]]:
        if "_sizes" not in vars(self):
            made = self.dictionary_q_, self.dictionary_p_
            if self.codec_ == "zstd":
                first, second = (_zstandard(self._level, each, self._is_trained) for each in made)
            else:
                first, second = (_deflated(self._level, each) for each in made)
            self._sizes = first, second
        return self._sizes

    def utility(self, pool: Any) -> np.ndarray:
        """Alignment of each text with the target, shape (n,); minus infinity for an empty text.

        Parameters
        ----------
        pool
            A list, array or column of strings.

        Returns
        -------
        ndarray of shape (n,)
            At most 1; 0 with ``"dictionary"`` where target and pool help alike.
        """
        if "codec_" not in vars(self):
            raise NotFittedError("CompressionAlignment is not fitted; call fit(q, p) first")
        texts = _bytes_of(as_texts(pool, "pool"))
        out = np.full(len(texts), -np.inf)
        if self.codec_ == "gzip":
            self._pairs(texts, out)
            return out
        # One compressor after the other: taking turns would empty the processor's caches.
        standard, size = (_sizes_of(texts, each) for each in self._compressors())
        some = standard > 0
        out[some] = (standard[some] - size[some]) / standard[some]
        return out

    def _pairs(self, texts: list[memoryview], out: np.ndarray) -> None:
        size = _deflated(self._level)
        alone = np.array([size(target) + _GZIP_HEADER for target in self.target_])
        for row, text in enumerate(texts):
            if len(text) == 0:
                continue
            own = size(text) + _GZIP_HEADER
            both = np.array([size(bytes(text) + t) + _GZIP_HEADER for t in self.target_])
            distance = (both - np.minimum(own, alone)) / np.maximum(own, alone)
            out[row] = 1.0 - distance.mean()

    def _counts(self, n: int) -> tuple[int, int]:
        if vars(self).get("codec_") == "gzip":
            return 0, n * len(self.target_)
        return 0, 2 * n
