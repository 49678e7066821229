import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from dpdq import _threads
from dpdq._threads import one_thread_each, parallel_map, usable_cores


def test_answers_come_in_order_whatever_the_cores(monkeypatch):
    for cores in (1, 3):
        monkeypatch.setattr(_threads, "usable_cores", lambda cores=cores: cores)
        assert parallel_map(lambda x: x * x, range(20)) == [x * x for x in range(20)]
        with pytest.raises(ZeroDivisionError):
            parallel_map(lambda x: 1 // x, [1, 0, 2])


def test_libraries_keep_to_one_thread_and_get_theirs_back():
    np.zeros((2, 2)) @ np.zeros((2, 2))
    before = [row["num_threads"] for row in threadpool_info()]
    with one_thread_each():
        assert {row["num_threads"] for row in threadpool_info()} == {1}
    assert [row["num_threads"] for row in threadpool_info()] == before


def test_several_workers_run_at_once(monkeypatch):
    monkeypatch.setattr(_threads, "usable_cores", lambda: 2)
    meet = threading.Barrier(2, timeout=20)
    parallel_map(lambda _: meet.wait(), range(2))


def test_cores_are_counted():
    assert 1 <= usable_cores() <= 8
