"""What a training run would be: shapes, parameter counts and memory, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gen.data.base import SimulationSet
from gen.emulators.base import Emulator

if TYPE_CHECKING:
    from gen.training.adversarial import AdversarialTraining
    from gen.training.single import SingleTraining


def plan(
    name: str,
    data: SimulationSet,
    emulator: Emulator,
    module: AdversarialTraining | SingleTraining | None,
    rows: int,
) -> str:
    """A description for people; ``rows`` is the batch of one device."""
    grid = data.grid
    edges = "periodic" if grid.periodic else "not periodic"
    counts = ", ".join(f"{len(data.rows(split))} {split}" for split in ("train", "validation", "test"))
    tables = sum(b.nbytes for b in emulator.buffers())
    size = _size(data.values.nbytes)
    lines = [
        f"{name}: {type(emulator).__name__} of {data.name} [{data.unit}]",
        f"  fields      {tuple(data.values.shape[1:])}, box {grid.box_size} {grid.unit}, {edges}",
        f"  data        {counts} fields of {data.n_simulations} simulations, {size}",
        f"  parameters  {', '.join(_ranges(data)) or 'none'}",
        f"  emulator    {count(emulator):,} trained weights, {_size(tables)} of fitted tables",
    ]
    if module is None:
        return "\n".join([*lines, "  training    closed form, no steps"])
    shapes, kept = _rehearse(module, data)
    critic = getattr(module, "critic", None)
    weights = count(emulator) + (count(critic) if critic is not None else 0)
    # Weights, gradients and Adam's two moments of all networks, and the average of the emulator's.
    fixed, graph = 4 * (4 * weights + count(emulator)) + 2 * tables, kept * rows
    parts = f"{_size(fixed)} weights and optimiser, {_size(graph)} kept for gradients"
    if critic is not None:
        lines.append(f"  critic      {count(critic):,} trained weights")
        shapes += f", scores ({rows},)"
    lines += [
        f"  shapes      {shapes}",
        f"  training    {module.max_steps} steps of {rows} fields a device, {module.loss}",
        f"  memory      about {_size(fixed + graph)} a device ({parts}), and the data",
    ]
    return "\n".join(lines)


def count(module: nn.Module) -> int:
    """Trained weights."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _ranges(data: SimulationSet) -> list[str]:
    space = data.space
    return [f"{n} in [{a:g}, {b:g}]" for n, a, b in zip(space.names, space.low, space.high, strict=True)]


def _rehearse(
    module: AdversarialTraining | SingleTraining, data: SimulationSet, rows: int = 2
) -> tuple[str, int]:
    """One loss on a few rows: the shape of the output, and bytes kept for gradients a row."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        try:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        except RuntimeError:  # in forward-mode differentiation a tensor is a view of two others
            held[-len(held) - 1] = tensor.nbytes
        return tensor

    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, _same):
        shape = module.rehearse(data.fields(torch.arange(rows)))
    kept = sum(size for pointer, size in held.items() if pointer not in own)
    return f"generated {shape}", kept // rows


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"
