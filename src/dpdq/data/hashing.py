"""Rows by their content: 64-bit hashes, and the rows that two files share.

A row's hash depends on its values alone. It folds the columns in the order given,

    h_0 = a constant,   h_j = mix(h_{j-1} xor v_j),

where ``mix`` is the splitmix64 bijection and v_j is a 64-bit word of the j-th value. Equal values
have equal words however they are stored: 2 and 2.0 and a decimal 2.00, -0.0 and 0.0, true and 1,
plain and dictionary-encoded strings, an instant in seconds or in nanoseconds, a null and a NaN.
Two different rows collide with probability 2^-64, so that among n rows some pair does with
probability about n^2 / 2^65: 3e-6 at ten million rows.

Equal rows on both sides do not yet mean that the files share rows: three yes/no columns have
eight contents in all. `CommonRows` tells the two apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dpdq._random import mix64
from dpdq.data import _values
from dpdq.data.schema import Column
from dpdq.errors import DataError
from dpdq.results import Result

__all__ = ["CommonRows", "column_hashes", "common_rows", "row_hashes", "text_hashes"]

_BLOCK = 16_384  # rows mixed at a time, so that a block stays in the cache
_START = np.uint64(0x243F6A8885A308D3)
_MISSING = np.uint64(0x13198A2E03707344)
_FRACTION = np.uint64(0xA4093822299F31D0)
_UNSIGNED = np.uint64(0x082EFA98EC4E6C89)
_NANOSECONDS = np.uint64(0x452821E638D01377)
_LONG = 256  # bytes; longer texts go through BLAKE2b one by one


def _fold(state: np.ndarray, words: np.ndarray) -> None:
    """Mix one word a row into the state, in place."""
    for start in range(0, state.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        state[block] = mix64(state[block] ^ words[block])


def _integer_words(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint64:
        words = values.copy()
        big = values >= np.uint64(2**63)
        if big.any():
            as_float = values[big].astype(np.float64)
            exact = (as_float < 2.0**64) & (
                np.where(as_float < 2.0**64, as_float, 0.0).astype(np.uint64) == values[big]
            )
            words[big] = np.where(
                exact, as_float.view(np.uint64) ^ _FRACTION, values[big] ^ _UNSIGNED
            )
        return words
    return values.astype(np.int64, copy=False).view(np.uint64)


def _float_words(values: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(values, dtype=np.float64)
    words = values.view(np.uint64) ^ _FRACTION
    inside = np.abs(values) < 2.0**63  # False for NaN and infinities
    integers = np.where(inside, values, 0.0).astype(np.int64)
    np.copyto(words, integers.view(np.uint64), where=inside & (integers == values))
    words[np.isnan(values)] = _MISSING
    return words


def _sequence_words(words: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Fold runs of words, run i being ``counts[i]`` words from position ``starts[i]``."""
    state = mix64(counts.astype(np.uint64) ^ _START)
    active = np.arange(counts.size)
    position = 0
    while active.size:
        active = active[counts[active] > position]
        state[active] = mix64(state[active] ^ words[starts[active] + position])
        position += 1
    return state


def _bytes_words(array: pa.Array) -> np.ndarray:
    """One word for each string or byte string; nulls get any word."""
    offset_type = np.int32 if pt.is_string(array.type) or pt.is_binary(array.type) else np.int64
    _, offset_buffer, data_buffer = array.buffers()
    n = len(array)
    offsets = np.frombuffer(offset_buffer, offset_type, n + 1, array.offset * offset_type().nbytes)
    offsets = offsets.astype(np.int64)
    first = int(offsets[0])
    size = int(offsets[-1]) - first
    data = np.zeros(size + 8, np.uint8)
    if size:
        data[:size] = np.frombuffer(data_buffer, np.uint8, size, first)
    starts = offsets[:-1] - first
    lengths = np.diff(offsets)
    state = mix64(lengths.astype(np.uint64) ^ _START)
    # eight bytes from any position: an overlapping view with a stride of one byte
    windows = np.ndarray((size + 1,), dtype="<u8", buffer=data.data, strides=(1,))
    keep = np.array([2 ** (8 * k) - 1 for k in range(8)] + [2**64 - 1], np.uint64)
    active = np.flatnonzero((lengths > 0) & (lengths <= _LONG))
    position = 0
    while active.size:
        word = windows[starts[active] + position]
        left = lengths[active] - position
        word &= keep[np.minimum(left, 8)]
        state[active] = mix64(state[active] ^ word)
        position += 8
        active = active[left > 8]
    for row in np.flatnonzero(lengths > _LONG).tolist():
        value = data[starts[row] : starts[row] + lengths[row]]
        digest = hashlib.blake2b(value.tobytes(), digest_size=8).digest()
        state[row] = np.uint64(int.from_bytes(digest, "little"))
    return state


def _list_words(array: pa.Array) -> np.ndarray:
    lengths = _values.pc.fill_null(_values.pc.list_value_length(array).cast(pa.int64()), 0)
    counts = lengths.to_numpy(zero_copy_only=False)
    flat = _plain_words(_values.pc.list_flatten(array))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]) if counts.size else counts
    return _sequence_words(flat, starts.astype(np.int64), counts)


def _plain_words(array: pa.Array) -> np.ndarray:
    """One word for each value of an array that is not dictionary encoded."""
    kind = array.type
    n = len(array)
    if pt.is_null(kind):
        return np.full(n, _MISSING)
    nulls = array.null_count > 0
    if pt.is_boolean(kind):
        filled = _values.pc.fill_null(array, False) if nulls else array
        words = filled.to_numpy(zero_copy_only=False).astype(np.uint64)
    elif pt.is_integer(kind):
        filled = _values.pc.fill_null(array, 0) if nulls else array
        words = _integer_words(filled.to_numpy(zero_copy_only=False))
    elif _values.is_number(kind):
        words = _float_words(_values.numbers(array))
    elif _values.is_time(kind):
        microseconds, nanoseconds, _ = _values.instants(array)
        words = microseconds.view(np.uint64) ^ (nanoseconds.view(np.uint64) * _NANOSECONDS)
    elif _values.is_text(kind):
        wide = pt.is_string(kind) or pt.is_large_string(kind)
        words = _bytes_words(array if wide else _values.text_values(array))
    elif pt.is_binary(kind) or pt.is_large_binary(kind):
        words = _bytes_words(array)
    elif _values.is_number_list(kind):
        words = _list_words(array)
    else:
        raise DataError(f"rows of type {_values.type_name(kind)} cannot be compared by content")
    if nulls:
        words = np.where(_values.pc.is_null(array).to_numpy(zero_copy_only=False), _MISSING, words)
    return words


def _dictionary_words(indices: pa.Array, words: np.ndarray) -> np.ndarray:
    filled = _values.pc.fill_null(indices.cast(pa.int64(), safe=False), words.size)
    return np.append(words, _MISSING)[filled.to_numpy(zero_copy_only=False)]


def _words(array: pa.Array) -> np.ndarray:
    """One word for each value of an array."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_dictionary(array.type):
        return _dictionary_words(array.indices, _plain_words(array.dictionary))
    return _plain_words(array)


def _kind_words(array: pa.Array, column: Column, side: str) -> np.ndarray:
    """One word for each value as its column's kind reads it."""
    where = f"column {column.name!r}" + (f" of {side}" if side else "")
    text = _values.is_text(array.type)
    if column.kind == "numeric" and text:
        return _float_words(_values.numbers(array, where))
    if column.kind == "boolean" and not pt.is_boolean(array.type):
        return _float_words(_values.booleans(array, where))
    if column.kind == "datetime" and text:
        return _words(_values.instants_array(array, where))
    if column.kind == "categorical" and not text:
        codes, levels = _values.labels(array, where)
        return np.append(_plain_words(levels), _MISSING)[codes]
    return _words(array)


def row_hashes(
    table: pa.Table | pa.RecordBatch, columns: Sequence[str | Column], *, side: str = ""
) -> np.ndarray:
    """Content hash of each row over the given columns, in their order.

    Equal rows have equal hashes whatever the chunks, encodings and widths of their columns; the
    order of ``columns`` counts. A column given as a `Column` is read as its kind, so that a date
    in a CSV file equals the same date in a Parquet file, and a categorical 2 equals the text "2".

    Misleads where numbers differ in the last digit, as after a round trip through float32: such
    rows are different rows.

    Parameters
    ----------
    table
        A table or a batch of one.
    columns
        Names of columns, or columns with their kind.
    side
        Name of the side, for error messages.

    Returns
    -------
    numpy.ndarray
        uint64, shape (n,).

    Raises
    ------
    DataError
        If a column is absent or of a type that has no content to compare.

    Notes
    -----
    Cost: O(n) time for each column (about 4 ns a number, 40 ns a short string), O(n) memory.

    Examples
    --------
    >>> import pyarrow as pa
    >>> a = pa.table({"x": [1, 2], "y": ["u", None]})
    >>> b = pa.table({"y": pa.array(["u", None]).dictionary_encode(), "x": [1.0, 2.0]})
    >>> bool((row_hashes(a, ["x", "y"]) == row_hashes(b, ["x", "y"])).all())
    True
    """
    state = np.full(table.num_rows, _START)
    for column in columns:
        name = column if isinstance(column, str) else column.name
        array = _values.column_array(table, name, side)
        words = _words(array) if isinstance(column, str) else _kind_words(array, column, side)
        _fold(state, words)
    return state


def column_hashes(
    table: pa.Table | pa.RecordBatch, column: str | Column, *, side: str = ""
) -> np.ndarray:
    """Content hash of each value of one column: the rows' groups, for example.

    Rows whose value is missing share one hash, and so form one group.

    Parameters
    ----------
    table
        A table or a batch of one.
    column
        Name of the column, or the column with its kind.
    side
        Name of the side, for error messages.

    Returns
    -------
    numpy.ndarray
        uint64, shape (n,).

    Notes
    -----
    Cost: O(n) time, O(n) memory.

    Examples
    --------
    >>> import pyarrow as pa
    >>> h = column_hashes(pa.table({"site": ["a", "b", "a"]}), "site")
    >>> bool(h[0] == h[2]), bool(h[0] == h[1])
    (True, False)
    """
    return row_hashes(table, [column], side=side)


def text_hashes(values: pa.Array) -> np.ndarray:
    """Hash of each string of an array; nulls share one.

    Parameters
    ----------
    values
        An Arrow array of strings.

    Returns
    -------
    numpy.ndarray
        uint64, shape (n,).

    Notes
    -----
    Cost: O(number of bytes) time, O(n) memory.

    Examples
    --------
    >>> import pyarrow as pa
    >>> h = text_hashes(pa.array(["to", "be", "to"]))
    >>> bool(h[0] == h[2])
    True
    """
    return _words(values)


@dataclasses.dataclass(frozen=True, repr=False)
class CommonRows(Result):
    """How many rows stand in both files, and whether one file was cut out of the other."""

    n_q: int
    """Rows of q whose content also stands in p."""
    n_p: int
    """Rows of p whose content also stands in q."""
    share_q: float
    """``n_q`` over the rows of q."""
    share_p: float
    """``n_p`` over the rows of p."""
    p_subset_of_q: bool
    """Every row of p stands in q, and independent draws would not do that."""
    q_subset_of_p: bool
    """Every row of q stands in p, and independent draws would not do that."""
    identical: bool
    """Both files hold the same rows equally often, in any order."""
    beyond_chance: bool
    """More rows are common than any two independent samples could share by chance."""
    sentence: str
    """The same in words."""


def _tail(successes: int, trials: int, chance: float) -> float:
    """P(Binomial(trials, chance) >= successes)."""
    from scipy.special import bdtrc

    return 1.0 if successes <= 0 else float(bdtrc(successes - 1, trials, chance))


def _poisson_bounds(count: int) -> tuple[float, float]:
    """Lower and upper one-sided bounds of a Poisson mean, each wrong once in a million."""
    from scipy.special import gammaincinv

    low = 0.0 if count == 0 else float(gammaincinv(count, 1e-6))
    return low, float(gammaincinv(count + 1, 1 - 1e-6))


def _copied(cross: int, within: int, n: int, m: int) -> bool:
    """Whether contents that occur twice in all stand on both sides too often."""
    chance = 1.0 / (1.0 + math.sqrt((1 - 1 / n) * (1 - 1 / m)))
    return cross > 2 * within and _tail(cross, cross + within, chance) < 1e-6


def _drawn_from(zero: int, one: int, two: int) -> bool:
    """Whether contents that occur once on a side occur too regularly once on the other."""
    if _tail(one, zero + one + two, math.sqrt(2) - 1) < 1e-6:
        return True
    reach = math.sqrt(2 * _poisson_bounds(zero)[1] * _poisson_bounds(two)[1])
    return _poisson_bounds(one)[0] > reach


def common_rows(q: np.ndarray, p: np.ndarray) -> CommonRows:
    """Count the rows that stand in both files and judge whether chance explains them.

    A row's content may occur on both sides because rows were copied, or because few contents
    exist. Let a content x occur Poisson(a_x) times in q and Poisson(b_x) times in p, as in any
    two independent samples, however different their laws. Then

        P(once on each side) = a b e^-(a+b)  <=  (a^2 + b^2) / 2 e^-(a+b) = P(twice on one side),

    so that among contents which occur twice in all, at most half (up to 1/n) stand on both sides;
    and among contents that occur once in p, the numbers N_0, N_1, N_2 of those that occur 0, 1, 2
    times in q obey E[N_1]^2 <= 2 E[N_0] E[N_2] (Cauchy-Schwarz) and E[N_1] <= (sqrt(2) - 1)
    E[N_0 + N_1 + N_2] (the largest a / (1 + a + a^2/2)). Rows are common *beyond chance* if one of
    the three inequalities is broken at level 1e-6: the first with more than twice as many pairs
    across as within, the second by Poisson bounds on its counts, the third by a binomial tail. A
    file is called a subset only then: two files with two yes/no columns share every content and
    share no rows.

    Misses copies of rows that are themselves repeated within a file, and subsets of fewer than
    16 rows.

    Parameters
    ----------
    q
        Row hashes of q, uint64, shape (n,).
    p
        Row hashes of p, uint64, shape (m,).

    Returns
    -------
    CommonRows
        Counts, shares, and the judgement with its sentence. Files that hold the same rows equally
        often are always ``identical``, and then each is a subset of the other.

    Notes
    -----
    Cost: O((n + m) log(n + m)) time, O(n + m) memory.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.arange(1000, dtype=np.uint64)
    >>> common_rows(q=rows, p=rows[:400]).sentence
    'p is a subset of q: all 400 rows of p stand in q'
    >>> coins = np.arange(1000, dtype=np.uint64) % np.uint64(8)
    >>> common_rows(q=coins, p=coins[:400]).beyond_chance
    False
    """
    n, m = int(q.size), int(p.size)
    contents_q, counts_q = np.unique(q, return_counts=True)
    contents_p, counts_p = np.unique(p, return_counts=True)
    if n == 0 or m == 0:
        nothing = "no row stands in both files"
        return CommonRows(0, 0, 0.0, 0.0, False, False, False, False, nothing)
    _, in_q, in_p = np.intersect1d(contents_q, contents_p, assume_unique=True, return_indices=True)
    both_q, both_p = counts_q[in_q], counts_p[in_p]
    n_q, n_p = int(both_q.sum()), int(both_p.sum())
    identical = n == m and n_q == n and n_p == m and bool(np.array_equal(both_q, both_p))

    cross = int(np.sum((both_q == 1) & (both_p == 1)))
    once_q, once_p = int(np.sum(counts_q == 1)), int(np.sum(counts_p == 1))
    twice_q = int(np.sum(counts_q == 2)) - int(np.sum(both_q == 2))
    twice_p = int(np.sum(counts_p == 2)) - int(np.sum(both_p == 2))
    beyond = (
        identical
        or _copied(cross, twice_q + twice_p, n, m)
        or _drawn_from(
            once_p - int(np.sum(both_p == 1)), cross, int(np.sum((both_p == 1) & (both_q == 2)))
        )
        or _drawn_from(
            once_q - int(np.sum(both_q == 1)), cross, int(np.sum((both_q == 1) & (both_p == 2)))
        )
    )
    p_in_q = beyond and n_p == m
    q_in_p = beyond and n_q == n
    return CommonRows(
        n_q=n_q,
        n_p=n_p,
        share_q=n_q / n,
        share_p=n_p / m,
        p_subset_of_q=p_in_q,
        q_subset_of_p=q_in_p,
        identical=identical,
        beyond_chance=beyond,
        sentence=_sentence(n, m, n_q, n_p, identical, p_in_q, q_in_p, beyond),
    )


def _share(part: int, whole: int) -> str:
    percent = 100 * part / whole
    if part and percent < 0.1:
        return "less than 0.1 %"
    if part < whole and percent >= 99.95:
        return "more than 99.9 %"
    return f"{percent:.1f} %"


def _sentence(
    n: int, m: int, n_q: int, n_p: int, identical: bool, p_in_q: bool, q_in_p: bool, beyond: bool
) -> str:
    if identical:
        return f"q and p hold the same {n:,} rows"
    if p_in_q and q_in_p:
        return "q and p hold the same rows, though not equally often"
    if p_in_q:
        return f"p is a subset of q: all {m:,} rows of p stand in q"
    if q_in_p:
        return f"q is a subset of p: all {n:,} rows of q stand in p"
    if n_p == 0:
        return "no row stands in both files"
    counts = (
        f"{n_p:,} of {m:,} rows of p ({_share(n_p, m)}) also stand in q, and {n_q:,} of {n:,} "
        f"rows of q ({_share(n_q, n)}) in p"
    )
    if beyond:
        return f"{counts}: more than independent samples share, so rows were copied"
    return f"{counts}, which chance could explain"
