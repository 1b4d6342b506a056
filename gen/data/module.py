"""Training and evaluation batches of a source, for Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning import LightningDataModule
from torch import Tensor

from gen.data.augment import Symmetries
from gen.data.base import SimulationSet, Source
from gen.data.batches import BatchOrder, EndlessBatches
from gen.fields import Fields


class TrainingBatches:
    """Endless augmented batches, batch ``b`` a pure function of ``(seed, b)``.

    Made in the main process: the fields are in memory, and no worker's state can be lost.
    """

    def __init__(
        self, data: SimulationSet, rows: Tensor, order: BatchOrder, symmetries: Symmetries | None, first: int
    ) -> None:
        self.data, self.rows, self.symmetries = data, rows, symmetries
        self.batches = EndlessBatches(order, first)

    def __iter__(self) -> Iterator[Fields]:
        order = self.batches.order
        for index, picked in self.batches:
            rows = self.rows[picked]
            fields = self.data.fields(rows)
            if self.symmetries is not None:
                fields = self.symmetries(fields, order.seed, index, order.share, order.batch_size)
            yield fields


class EvaluationBatches:
    """Each row once, in order, never augmented; rank r of w takes every w-th row from r on."""

    def __init__(
        self, data: SimulationSet, rows: Tensor, batch_size: int, rank: int, world_size: int
    ) -> None:
        self.data, self.batches = data, rows[rank::world_size].split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Fields]:
        for rows in self.batches:
            yield self.data.fields(rows)


class FieldData(LightningDataModule):
    """Batches (``Fields``, physical units) of the train, validation and test simulations of a source.

    Args:
        source: where the fields come from.
        batch_size: of the global training batch, shared out over all ranks.
        seed: of batch order and augmentation.
        augment: move each training field by a random symmetry of its grid.
        vector_channels, coarse_vector_channels: channels that are the components of vectors, see
            ``Symmetries``; default those that the source names.

    A resumed run sets ``first_batch`` to the number of batches already used before the loader is
    asked for; it then sees what the uninterrupted run would see. Use Lightning's
    ``limit_train_batches=data.batches_per_epoch``, since the training loader has no end.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 64,
        seed: int = 0,
        augment: bool = True,
        vector_channels: Sequence[Sequence[int]] = (),
        coarse_vector_channels: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__()
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.augment, self.vector_channels = augment, vector_channels
        self.coarse_vector_channels = coarse_vector_channels
        self.first_batch = 0
        self._simulations: SimulationSet | None = None

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        del stage
        if self._simulations is None:
            self._simulations = self.source.load()

    def rehearse(self) -> None:
        """Take what a dry run needs, which may be stand-ins."""
        self._simulations = self.source.rehearse()

    @property
    def simulations(self) -> SimulationSet:
        """All splits; read or made at first use."""
        self.setup()
        assert self._simulations is not None
        return self._simulations

    @property
    def training_set(self) -> SimulationSet:
        """A copy of the training fields, for closed-form fits."""
        return self.simulations.select(split="train")

    @property
    def batches_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    @property
    def order(self) -> BatchOrder:
        rank, world_size = self._place()
        n = len(self.simulations.rows("train"))
        return BatchOrder(n, self.batch_size, self.seed, rank, world_size)

    def train_dataloader(self) -> TrainingBatches:
        data = self.simulations
        vectors = self.vector_channels or data.vector_channels
        coarse = self.coarse_vector_channels or data.coarse_vector_channels
        turns = Symmetries(data.grid, vectors, None, coarse, data.spin_channels, data.line_of_sight)
        moves = turns if self.augment else None
        return TrainingBatches(data, data.rows("train"), self.order, moves, self.first_batch)

    def val_dataloader(self) -> EvaluationBatches:
        return self._evaluation("validation")

    def test_dataloader(self) -> EvaluationBatches:
        return self._evaluation("test")

    def _evaluation(self, split: str) -> EvaluationBatches:
        rank, world_size = self._place()
        size = max(1, self.batch_size // world_size)
        return EvaluationBatches(self.simulations, self.simulations.rows(split), size, rank, world_size)

    def _place(self) -> tuple[int, int]:
        """Rank and world size of the attached trainer, or of a lone process."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
