"""The model card that a training run writes beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gen.data.base import SimulationSet
from gen.emulators.base import Emulator
from gen.training.plan import count

if TYPE_CHECKING:
    from gen.training.adversarial import AdversarialTraining
    from gen.training.single import SingleTraining


def card(
    name: str,
    data: SimulationSet,
    emulator: Emulator,
    module: AdversarialTraining | SingleTraining | None,
    record: Mapping[str, Any],
    start: str = "",
) -> str:
    """Markdown: what it makes, from what it learnt, how, and what it was not tested for.

    Args:
        record: step and validation statistics of the chosen generator, empty for a closed-form fit.
        start: name and sha256 of the checkpoint that training went on from, if it did.
    """
    grid, space, train = data.grid, data.space, data.select(split="train")
    kind = type(emulator).__name__
    cells = "x".join(map(str, grid.shape))
    box = " x ".join(f"{side:g}" for side in grid.box_size)
    edges = "periodic" if grid.periodic else "not periodic"
    ends = zip(space.names, space.low, space.high, strict=True)
    ranges = "\n".join(f"- `{name}` in [{a:g}, {b:g}]" for name, a, b in ends) or "- none"
    training = "\n".join(_training(emulator, module, record, start))
    return f"""# {name}

`{kind}` of {emulator.field} [{emulator.unit}] on {cells} cells, {box} {grid.unit}, {edges}.

## Parameters

{ranges}

Outside these ranges it is refused unless extrapolation is asked for, and then untested here.

## Training data

{data.name}: {len(train)} fields of {train.n_simulations} simulations; whole simulations are held out for
validation and test.

## Training

{training}

## Limits

Validation statistics choose between generators of one run; they are not a verdict. See `report.json` for
the comparison with held-out simulations.
"""


def _training(
    emulator: Emulator,
    module: AdversarialTraining | SingleTraining | None,
    record: Mapping[str, Any],
    start: str,
) -> list[str]:
    if module is None:
        return ["Fitted in closed form."]
    critic, r1 = getattr(module, "critic", None), getattr(module, "r1", None)
    beside = "" if critic is None else f"; {count(critic):,} of the critic, not shipped"
    numbers = ", ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, float))
    return [
        *([f"- went on from {start}"] if start else []),
        f"- loss: `{module.loss}`{f', `{r1}`' if r1 else ''}",
        f"- optimiser: `{module.optimiser}`; seed {module.seed}",
        f"- weights: {count(emulator):,} trained{beside}",
        f"- moving average of decay {module.ema_decay:g}, after step {record['step']} of {module.max_steps}",
        f"- validation: {numbers}",
    ]
