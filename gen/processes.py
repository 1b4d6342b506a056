"""Processes that work for this one: a thread each, deaf to Ctrl-C, gone when it is gone."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import torch


def processes(count: int) -> ProcessPoolExecutor:
    """A pool of fresh processes."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the pool between tasks
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()  # a pool whose parent was killed would wait for work for ever
        os._exit(1)
