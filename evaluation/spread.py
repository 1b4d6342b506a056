"""Work spread over processes, or over machines by Dask; the outcome does not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import TypeVar

import torch
from tqdm import tqdm

from gen.errors import InputError
from gen.processes import processes as pool_of

T = TypeVar("T")
IN_FLIGHT = 32


@contextmanager
def workers(processes: int = 1, scheduler: str | None = None) -> Iterator[Executor | None]:
    """What runs tasks: local processes, the workers of a Dask scheduler, or (None) this process itself.

    Args:
        processes: local ones; 1 starts none.
        scheduler: address of a running Dask scheduler, such as ``tcp://host:8786``.

    Raises:
        InputError: if there is no scheduler at the address, or Dask is not installed.
    """
    if scheduler is not None:
        with _client(scheduler) as executor:
            yield executor
    elif processes > 1:
        with pool_of(processes) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        yield None


@contextmanager
def _client(scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("a Dask scheduler needs Dask; pip install 'cosmozoo[cluster]'") from error
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler}; start one with `dask scheduler` and give its address"
        ) from error
    with client:
        yield client.get_executor()


def spread(
    function: Callable[..., T],
    tasks: Iterable[tuple[object, ...]],
    executor: Executor | None,
    label: str,
    sizes: Sequence[int],
    in_flight: int = IN_FLIGHT,
) -> list[T]:
    """``function(*task)`` of every task, in their order, with a progress bar; one thread each.

    Tasks are drawn when their turn is near, so that they may be read from a file as the work goes on.
    ``sizes``: how much of the bar each task is worth; ``in_flight``: tasks handed out and not done, at most.
    """
    with tqdm(total=sum(sizes), desc=label, disable=None) as bar:
        if executor is None:
            found = []
            for task, size in zip(tasks, sizes, strict=True):
                found.append(_on_one_thread(function, task))
                bar.update(size)
            return found
        futures: list[Future[T]] = []
        for i, task in enumerate(tasks):
            futures.append(executor.submit(_on_one_thread, function, task))
            if i >= in_flight:
                futures[i - in_flight].result()
                bar.update(sizes[i - in_flight])
        out = []
        for i, future in enumerate(futures):
            out.append(future.result())
            if i >= len(futures) - in_flight:
                bar.update(sizes[i])
        return out


def _on_one_thread(function: Callable[..., T], task: tuple[object, ...]) -> T:
    """Sums of several threads differ in their last bits from those of one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*task)
    finally:
        torch.set_num_threads(threads)
