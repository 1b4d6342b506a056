"""The transformer: zero at the start, symmetric under shifts by a patch, deaf to no parameter."""

from __future__ import annotations

import pytest
import torch

from gen.errors import InputError
from gen.nets.layers import Padding
from gen.nets.transformer import Transformer

SHAPES = {2: (16, 8), 3: (8, 4, 12)}


def make(dim: int, padding: Padding = "circular", n_params: int = 2) -> Transformer:
    torch.manual_seed(0)
    return Transformer(dim, 2, 3, n_params, 24, 2, 2, 4 if dim == 2 else 2, padding)


def perturbed(net: Transformer) -> Transformer:
    """With weights in place of the zeros that it starts from."""
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return net


@pytest.mark.parametrize("dim", [2, 3])
def test_it_starts_at_zero_and_its_blocks_as_the_identity(dim: int) -> None:
    net = make(dim)
    x, params = torch.randn(2, 2, *SHAPES[dim]), torch.rand(2, 2)
    assert net(x, params).shape == (2, 3, *SHAPES[dim])
    assert net(x, params).abs().max() == 0
    torch.nn.init.normal_(net.leave.weight)
    deep = net(x, params)
    net.blocks = net.blocks[:0]
    assert torch.equal(net(x, params), deep)


@pytest.mark.parametrize("dim", [2, 3])
def test_it_commutes_with_shifts_by_a_patch(dim: int) -> None:
    """If its phases are those of a periodic box; those of an open one are the negative control."""
    axes = tuple(range(2, 2 + dim))
    errors: dict[Padding, float] = {}
    paddings: tuple[Padding, ...] = ("circular", "zeros")
    for padding in paddings:
        net = perturbed(make(dim, padding))
        x, params = torch.randn(2, 2, *SHAPES[dim]), torch.rand(2, 2)
        whole = net(x, params).detach()
        moved = net(x.roll((net.factor,) * dim, axes), params).detach()
        errors[padding] = float((whole.roll((net.factor,) * dim, axes) - moved).abs().max() / whole.std())
    assert errors["circular"] < 1e-5 < 1e-2 < errors["zeros"]


@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_attention_tells_near_from_far(padding: Padding) -> None:
    """Tokens that change places are noticed by the others, which a sum over tokens would not."""
    net = perturbed(make(2, padding)).double()
    x, params = torch.randn(1, 2, 32, 4, dtype=torch.float64), torch.rand(1, 2, dtype=torch.float64)
    order = [0, 5, 2, 3, 4, 1, 6, 7]
    swapped = x.unflatten(2, (8, 4))[:, :, order].flatten(2, 3)
    change = (net(swapped, params) - net(x, params)).abs()[:, :, :4].max()
    assert change > 1e-3 * net(x, params).std()


@pytest.mark.parametrize(("dim", "n_params"), [(2, 2), (3, 2), (2, 0)])
def test_gradients_reach_every_parameter(dim: int, n_params: int) -> None:
    net = perturbed(make(dim, n_params=n_params))
    net(torch.randn(2, 2, *SHAPES[dim]), torch.rand(2, n_params)).square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


def test_parameters_matter_row_by_row() -> None:
    net = perturbed(make(2))
    x = torch.randn(1, 2, 16, 8).expand(3, -1, -1, -1)
    params = torch.tensor([[0.1, 0.2], [0.1, 0.2], [0.9, 0.2]])
    made = net(x, params)
    assert torch.allclose(made[0], made[1])
    assert (made[0] - made[2]).abs().max() > 0.01 * made.std()


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"divide by the transformer's patch of 4 cells, got \(16, 10\)"):
        make(2)(torch.randn(1, 2, 16, 10), torch.rand(1, 2))
    with pytest.raises(InputError, match="6 or more a head in 3D"):
        Transformer(3, 1, 1, 0, width=16, heads=4)
    with pytest.raises(InputError, match="even multiple of its heads"):
        Transformer(2, 1, 1, 0, width=18, heads=4)
