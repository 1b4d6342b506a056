"""What a training run would be: shapes, parameter counts and memory, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gen.data.base import SimulationSet
from gen.emulators.base import Emulator
from gen.noise import sample_generator

if TYPE_CHECKING:
    from gen.training.adversarial import AdversarialTraining


def plan(
    name: str, data: SimulationSet, emulator: Emulator, module: AdversarialTraining | None, rows: int
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
    weights = count(emulator) + count(module.critic)
    # Weights, gradients and Adam's two moments of both networks, and the average of the generator's.
    fixed, graph = 4 * (4 * weights + count(emulator)) + 2 * tables, kept * rows
    parts = f"{_size(fixed)} weights and optimiser, {_size(graph)} kept for gradients"
    lines += [
        f"  critic      {count(module.critic):,} trained weights",
        f"  shapes      {shapes}, scores ({rows},)",
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


def _rehearse(module: AdversarialTraining, data: SimulationSet, rows: int = 2) -> tuple[str, int]:
    """One generator loss on a few rows: the shape of its output, and bytes kept for gradients a row."""
    params = data.params[:rows].float()
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    noise = [sample_generator(0, i, "plan") for i in range(rows)]
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, _same):
        fake = module.generator.decode(module.generator.draw_latent(params, noise), params)
        module.critic(fake, params)
    kept = sum(size for pointer, size in held.items() if pointer not in own)
    return f"generated {tuple(fake.shape)[1:]}", kept // rows


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"
