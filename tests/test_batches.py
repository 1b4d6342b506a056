"""Batches are a function of (seed, index): resumable, without repetition, the same over ranks."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from gen.data.base import SimulationSet, Source, split_by_simulation
from gen.data.batches import BatchOrder, EndlessBatches
from gen.data.module import FieldData
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace


class Numbered(Source):
    """Field i is filled with distinct numbers whose integer part is i."""

    def load(self) -> SimulationSet:
        grid = Grid((4, 4), 1.0, "deg", periodic=True)
        ids = torch.arange(20).repeat_interleave(3)
        cells = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        values = torch.arange(60.0)[:, None, None, None] + cells
        space = ParameterSpace(("index",), (0.0,), (19.0,))
        split = split_by_simulation(ids)
        return SimulationSet(
            grid, space, values, ids[:, None].float(), ids, split, np.full(60, "interior"), "numbered"
        ).check()


def take(loader, n: int) -> list:
    return list(islice(iter(loader), n))


@pytest.mark.parametrize(("n", "size"), [(100, 10), (103, 10), (7, 7), (5, 1)])
def test_an_epoch_never_repeats_a_row_and_leaves_out_only_the_remainder(n: int, size: int) -> None:
    order = BatchOrder(n, size, seed=4)
    for epoch in range(5):
        first = epoch * order.batches_per_epoch
        rows = torch.cat([order.batch(b) for b in range(first, first + order.batches_per_epoch)])
        assert len(rows) == len(rows.unique()) == n - n % size and rows.min() >= 0 and rows.max() < n


def test_every_row_is_seen_over_epochs_equally_often() -> None:
    order = BatchOrder(10, 4, seed=0)
    counts = torch.bincount(torch.cat([order.batch(b) for b in range(2 * 500)]), minlength=10)
    # Each row is in 8 of 10 places of an epoch: 400 of 500, binomial scatter 9.
    assert (counts - 400).abs().max() < 4.5 * 9


def test_a_batch_is_a_function_of_seed_and_index_alone() -> None:
    ahead = BatchOrder(50, 8, seed=1)
    late = ahead.batch(999)
    again = BatchOrder(50, 8, seed=1)
    for b in (3, 0, 700, 12):
        again.batch(b)
    assert torch.equal(again.batch(999), late)
    assert not torch.equal(BatchOrder(50, 8, seed=2).batch(999), late)
    assert not torch.equal(ahead.batch(0), ahead.batch(6))  # first batches of two epochs


def test_ranks_together_see_the_batches_of_one_process() -> None:
    alone = BatchOrder(50, 8, seed=1)
    ranks = [BatchOrder(50, 8, seed=1, rank=r, world_size=4) for r in range(4)]
    for b in (0, 5, 6, 71):
        assert torch.equal(torch.cat([r.batch(b) for r in ranks]), alone.batch(b))


def test_endless_batches_start_anywhere_and_have_no_length() -> None:
    order = BatchOrder(10, 4)
    head, tail = take(EndlessBatches(order), 9), take(EndlessBatches(order, first=5), 4)
    assert [i for i, _ in tail] == [5, 6, 7, 8]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(head[5:], tail, strict=True))
    assert not hasattr(EndlessBatches(order), "__len__")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 10, "batch_size": 11}, "10 fields"),
        ({"n": 10, "batch_size": 0}, "got 0"),
        ({"n": 10, "batch_size": 6, "world_size": 4}, "multiple of 4"),
        ({"n": 10, "batch_size": 8, "world_size": 4, "rank": 4}, "rank"),
    ],
)
def test_orders_that_cannot_be_are_refused(arguments, words: str) -> None:
    with pytest.raises(InputError, match=words):
        BatchOrder(**arguments)
    with pytest.raises(InputError, match="negative"):
        EndlessBatches(BatchOrder(10, 4), first=-1)


def test_a_resumed_loader_gives_the_very_bits_of_the_uninterrupted_one() -> None:
    whole = take(FieldData(Numbered(), batch_size=8, seed=3).train_dataloader(), 20)
    resumed = FieldData(Numbered(), batch_size=8, seed=3)
    resumed.first_batch = 13
    for a, b in zip(whole[13:], take(resumed.train_dataloader(), 7), strict=True):
        assert torch.equal(a.values, b.values) and torch.equal(a.params, b.params)


def test_training_batches_hold_training_simulations_and_augmentation_moves_only_cells() -> None:
    data = FieldData(Numbered(), batch_size=8, seed=3)
    allowed = set(data.simulations.select(split="train").simulation.tolist())
    moved = 0
    for fields in take(data.train_dataloader(), 12):
        original = data.simulations.values[fields.values.flatten(1).amin(1).floor().long()]
        assert torch.equal(fields.values.flatten(1).sort(1).values, original.flatten(1).sort(1).values)
        assert {int(i) // 3 for i in fields.values.flatten(1).amin(1)} <= allowed
        assert torch.equal(fields.params[:, 0], (fields.values.flatten(1).amin(1) / 3).floor())
        moved += int((fields.values != original).flatten(1).any(1).sum())
    assert moved > 0.9 * 12 * 8  # one of 8 * 16 elements is the identity


def test_without_augmentation_the_fields_come_as_they_are() -> None:
    data = FieldData(Numbered(), batch_size=8, augment=False)
    for fields in take(data.train_dataloader(), 3):
        rows = fields.values.flatten(1).amin(1).floor().long()
        assert torch.equal(fields.values, data.simulations.values[rows])


def test_evaluation_loaders_give_each_row_of_their_split_once_unmoved() -> None:
    data = FieldData(Numbered(), batch_size=4)
    for loader, split in ((data.val_dataloader(), "validation"), (data.test_dataloader(), "test")):
        fields = torch.cat([f.values for f in loader])
        assert torch.equal(fields, data.simulations.select(split=split).values)
        assert len(list(loader)) == len(loader) == 2


class Gradients(Source):
    """Fields, and coarse the gradient of each, which names its channels as one vector."""

    def load(self) -> SimulationSet:
        data = Numbered().load()
        x = data.values
        slope = torch.cat([(x.roll(-1, a) - x.roll(1, a)) / 2 for a in (2, 3)], 1)
        return replace(data, coarse=slope, coarse_grid=data.grid, coarse_vector_channels=((0, 1),)).check()


def test_coarse_fields_come_with_their_fields_and_turn_as_the_vectors_that_the_source_names() -> None:
    data = FieldData(Gradients(), batch_size=8, seed=3)
    for fields in take(data.train_dataloader(), 4):
        x = fields.values
        slope = torch.cat([(x.roll(-1, a) - x.roll(1, a)) / 2 for a in (2, 3)], 1)
        assert torch.allclose(fields.coarse, slope, atol=1e-5)
    assert data.simulations.coarse is not None
    held = data.simulations.coarse[data.simulations.rows("test")]
    assert torch.equal(torch.cat([f.coarse for f in data.test_dataloader()]), held)
    assert next(iter(FieldData(Numbered(), batch_size=8).train_dataloader())).coarse.shape[1] == 0


class Place:
    def __init__(self, rank: int, world_size: int) -> None:
        self.global_rank, self.world_size = rank, world_size


def test_augmented_shares_of_the_ranks_are_the_batch_of_one_process() -> None:
    alone = take(FieldData(Numbered(), batch_size=8, seed=3).train_dataloader(), 6)
    shares = []
    for rank in range(2):
        data = FieldData(Numbered(), batch_size=8, seed=3)
        data.trainer = Place(rank, 2)  # type: ignore[assignment]
        shares.append(take(data.train_dataloader(), 6))
    for whole, a, b in zip(alone, *shares, strict=True):
        assert torch.equal(whole.values, torch.cat([a.values, b.values]))


def test_evaluation_shares_of_the_ranks_cover_the_split_once() -> None:
    rows = []
    for rank in range(4):
        data = FieldData(Numbered(), batch_size=8)
        data.trainer = Place(rank, 4)  # type: ignore[assignment]
        rows += [f.values.flatten(1).amin(1).floor() for f in data.val_dataloader()]
    expected = Numbered().load().rows("validation").float()
    assert torch.equal(torch.cat(rows).sort().values, expected)
