"""The order of training batches as a pure function of (seed, global batch index)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from gen.errors import InputError
from gen.noise import sample_generator


@dataclass(frozen=True)
class BatchOrder:
    """Epoch-wise permutations without replacement, addressed by batch index.

    Batch ``b`` belongs to epoch ``b // batches_per_epoch``. Within an epoch no row comes twice; the
    ``n % batch_size`` rows that fill no batch are others in every epoch. Nothing depends on history,
    so a run resumed at batch ``b`` sees what the uninterrupted run saw.

    Args:
        n: rows of the training set.
        batch_size: rows of the *global* batch, over all ranks.
        seed: of the order.
        rank, world_size: this process takes rows ``[rank, rank + 1) * batch_size / world_size`` of
            each global batch; together the ranks see what one process would see.
    """

    n: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.n:
            raise InputError(
                f"batch_size must be between 1 and the {self.n} fields of the training set, got "
                f"{self.batch_size}"
            )
        if self.batch_size % self.world_size:
            raise InputError(
                f"batch_size is shared out over the ranks, so it must be a multiple of {self.world_size}, "
                f"got {self.batch_size}"
            )
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank must be in [0, {self.world_size}), got {self.rank}")

    @property
    def batches_per_epoch(self) -> int:
        return self.n // self.batch_size

    @property
    def share(self) -> slice:
        """This rank's rows of the global batch."""
        size = self.batch_size // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def batch(self, index: int) -> Tensor:
        """This rank's row indices of global batch ``index``, int64."""
        epoch, position = divmod(index, self.batches_per_epoch)
        start = position * self.batch_size
        return _permutation(self.n, self.seed, epoch)[start : start + self.batch_size][self.share]


class EndlessBatches:
    """Yields ``(batch index, row indices)`` from ``first`` on, without end and without a length.

    With a length Lightning would count epochs and restore its own position; without one the first
    index alone says where a resumed run stands.
    """

    def __init__(self, order: BatchOrder, first: int = 0) -> None:
        if first < 0:
            raise InputError(f"the first batch index must not be negative, got {first}")
        self.order, self.first = order, first

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        index = self.first
        while True:
            yield index, self.order.batch(index)
            index += 1


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=sample_generator(seed, epoch, "batches"))
