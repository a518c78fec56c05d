"""Calls in threads, and what becomes of a call whose workers die."""

from __future__ import annotations

import threading

import pytest

from detectors.errors import DetectorPoolError
from detectors.parallel_executor import Call, CallResult, InProcess, ParallelExecutor, WorkerLost


def _squares(numbers: tuple[int, ...]) -> list[int]:
    """Stand for a task that ends its worker when 7 is among its units."""
    if 7 in numbers:
        raise WorkerLost("squares")
    return [number * number for number in numbers]


def _halves(call: Call) -> tuple[Call, ...]:
    (numbers,) = call.args
    middle = len(numbers) // 2
    parts = (numbers[:middle], numbers[middle:]) if middle else ()
    return tuple(Call(call.name, _squares, (part,)) for part in parts)


def _settled(results: list[CallResult]) -> dict[tuple[int, ...], object]:
    return {result.call.args[0]: result.error or result.value for result in results}


def test_every_call_has_one_result_and_an_error_hides_no_other() -> None:
    """When this fails, a detector that raises, or ends its thread, takes the answers of others with it."""

    def run(number: int) -> int:
        if number == 3:
            raise SystemExit(0)
        return 12 // (number - 5)

    executor = ParallelExecutor(InProcess(2))
    found = {result.call.about: result for result in executor.run(Call("n", run, (n,), about=n) for n in range(20))}
    executor.close()

    assert set(found) == set(range(20))
    assert {n: type(result.error) for n, result in found.items() if result.error} == {
        3: SystemExit,
        5: ZeroDivisionError,
    }
    assert found[6].value == 12


def test_calls_of_several_threads_share_the_workers() -> None:
    """When this fails, the stages of a flow run more at once than the run was given."""
    running, most = 0, 0
    lock, enough = threading.Lock(), threading.Event()

    def run() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        enough.wait(0.02)
        with lock:
            running -= 1

    executor = ParallelExecutor(InProcess(2))
    stages = [threading.Thread(target=lambda: list(executor.run([Call("s", run)] * 10))) for _ in range(4)]
    for stage in stages:
        stage.start()
    for stage in stages:
        stage.join(60)
    executor.close()

    assert most == 2


def test_an_early_end_lets_nothing_further_begin_and_tells_who_waits() -> None:
    """When this fails, an interrupted scan goes on in its threads, or a stage beside it waits for ever."""
    begun: list[int] = []
    gate = threading.Event()
    executor = ParallelExecutor(InProcess(1))
    told: list[BaseException | None] = []

    def run(number: int) -> None:
        begun.append(number)
        assert number == 0 or gate.wait(60)

    def wait_beside() -> None:
        try:
            told.extend(result.error for result in executor.run([Call("other", run, (99,))]))
        except DetectorPoolError as problem:  # asked after the end
            told.append(problem)

    results = executor.run(Call("first", run, (n,)) for n in range(50))
    assert next(results).error is None
    beside = threading.Thread(target=wait_beside)
    beside.start()
    closer = threading.Thread(target=results.close)  # type: ignore[attr-defined]  # it is a generator
    closer.start()
    beside.join(60)
    gate.set()
    closer.join(60)

    assert not beside.is_alive()
    assert not closer.is_alive()
    assert begun in ([0], [0, 1])
    assert [type(problem) for problem in told] == [DetectorPoolError]


def test_what_kills_its_workers_is_found_alone_and_all_else_is_answered() -> None:
    """When this fails, one bad file costs those beside it, or the search for it never ends."""
    executor = ParallelExecutor(InProcess(2))
    numbers = tuple(range(21))
    found = _settled(list(executor.run_divided([Call("squares", _squares, (numbers,))], _halves)))
    executor.close()

    assert sorted(number for part in found for number in part) == list(numbers)
    assert [part for part, answer in found.items() if isinstance(answer, WorkerLost)] == [(7,)]
    assert all(answer == [n * n for n in part] for part, answer in found.items() if part != (7,))


def test_a_division_that_does_not_end_is_an_error() -> None:
    """When this fails, a call that is divided into itself runs until somebody ends it."""
    executor = ParallelExecutor(InProcess(1))

    with pytest.raises(AssertionError, match="does not end"):
        list(executor.run_divided([Call("squares", _squares, ((7,),))], lambda call: [call]))
    executor.close()
