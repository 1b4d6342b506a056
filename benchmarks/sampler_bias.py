"""What samplers of diffusion models do to the power of a Gaussian wave when the score is exact.

python benchmarks/sampler_bias.py [--samples 20000]

Writes benchmarks/sampler_bias.md and .png. A Gaussian wave of power P has the Wiener filter for its
denoiser, so whatever its sampled power is off by is the schedule's and the solver's fault: no network is
involved. Ours is ``gen.diffusion.solver`` on a ladder even in ln sigma, which is even in logit t too, t being
the time of flow matching; on ladders even in t it is shown by itself. The others are diffusers' schedulers as
papers and tutorials set them, without clipping.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from gen.diffusion.levels import FlowLadder, Ladder
from gen.diffusion.solver import gaussian_bias

OUT = Path(__file__).with_name("sampler_bias.md")
POWER = torch.logspace(-4, 4, 17, dtype=torch.float64)
SHOWN = POWER[::2]


def edm(kind: Any, steps: int, n: int, **options: Any) -> Tensor:
    """Of a scheduler whose samples are field + sigma noise."""
    scheduler = kind(sigma_data=1.0, **options)
    scheduler.set_timesteps(steps)
    x = float(scheduler.init_noise_sigma) * _white(n)
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        sigma = float(scheduler.sigmas[scheduler.step_index])
        d = POWER / (POWER + sigma**2) * x
        skip, out = 1 / (sigma**2 + 1), sigma / (sigma**2 + 1) ** 0.5
        x = scheduler.step((d - skip * x) / out, t, x, return_dict=False)[0].double()
    return x.square().mean(0) / POWER - 1


def discrete(scheduler: Any, steps: int, n: int) -> Tensor:
    """Of a scheduler of a thousand levels whose network tells the noise."""
    scheduler.set_timesteps(steps)
    x = _white(n)
    for t in scheduler.timesteps:
        kept = scheduler.alphas_cumprod[t].double()
        d = kept.sqrt() * POWER / (kept * POWER + 1 - kept) * x
        x = scheduler.step((x - kept.sqrt() * d) / (1 - kept).sqrt(), t, x, return_dict=False)[0].double()
    return x.square().mean(0) / POWER - 1


def flow(steps: int, n: int) -> Tensor:
    """Straight lines from noise to field, by Euler's method."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    x = _white(n)
    for t, s in zip(scheduler.timesteps, scheduler.sigmas.double(), strict=False):
        seen = (1 - s) ** 2 * POWER + s**2
        velocity = (s - (1 - s) * POWER) / seen * x  # of noise - field, given x
        x = scheduler.step(velocity, t, x, return_dict=False)[0].double()
    return x.square().mean(0) / POWER - 1


def _white(n: int) -> Tensor:
    x = torch.randn(n, len(POWER), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x / x.square().mean(0).sqrt()


def samplers(n: int) -> dict[str, Callable[[], Tensor]]:
    """By name; deterministic ones need a single sample of each wave."""
    betas = {"beta_schedule": "linear", "clip_sample": False}
    return {
        "ours, order 3, 64 evaluations": lambda: gaussian_bias(POWER, Ladder()),
        "ours, order 3, 32": lambda: gaussian_bias(POWER, Ladder(steps=32)),
        "ours, order 3, 24": lambda: gaussian_bias(POWER, Ladder(steps=24)),
        "DPM-Solver++(2M), the same 32 levels": lambda: edm(
            EDMDPMSolverMultistepScheduler, 32, 1, sigma_min=1e-3, sigma_max=1e3, sigma_schedule="exponential"
        ),
        "DPM-Solver++(2M), Karras, sigma to 80, 50": lambda: edm(
            EDMDPMSolverMultistepScheduler, 50, 1, sigma_min=2e-3, sigma_max=80.0, sigma_schedule="karras"
        ),
        "EDM Euler, sigma to 80, 50": lambda: edm(EDMEulerScheduler, 50, 1, sigma_min=2e-3, sigma_max=80.0),
        "DDPM, linear, 1000": lambda: discrete(DDPMScheduler(**betas), 1000, n),
        "DDIM, linear, 50": lambda: discrete(DDIMScheduler(**betas), 50, 1),
        "flow matching, Euler, 50": lambda: flow(50, 1),
        "ladder even in flow time t, order 1 (Euler), 64": lambda: gaussian_bias(POWER, FlowLadder(), 1),
        "ladder even in flow time t, order 2, 64": lambda: gaussian_bias(POWER, FlowLadder(), 2),
        "ladder even in flow time t, order 3, 64": lambda: gaussian_bias(POWER, FlowLadder(), 3),
        "ladder even in flow time t, order 2, 256": lambda: gaussian_bias(POWER, FlowLadder(steps=256), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20000, help="of samplers that draw noise as they go")
    torch.manual_seed(0)  # DDPM draws from the global stream
    found = {name: run() for name, run in samplers(parser.parse_args().samples).items()}
    head = ["sampler", *(f"P = 1e{round(float(p.log10())):+d}" for p in SHOWN)]
    rows = [head, ["---"] * len(head)]
    for name, bias in found.items():
        rows.append([name, *(f"{100 * float(b):+.1f}" for b in bias[::2])])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    text = (__doc__ or "").strip().split("\n\n", 1)[0]
    OUT.write_text(f"# {text}\n\nPer cent, by `python benchmarks/sampler_bias.py`.\n\n{table}\n")
    print(table)
    _draw(found)


def _draw(found: dict[str, Tensor]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10.5, 4.2), layout="constrained")
    for name, bias in found.items():
        ours, even_in_time = name.startswith("ours"), name.startswith("ladder")
        style = "-" if ours else ":" if even_in_time else "--"
        axes.plot(POWER, 100 * bias, lw=2.4 if ours else 1.2, ls=style, label=name)
    axes.axhspan(-1, 1, color="0.85", zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(-100, 100)
    axes.set_yticks([-100, -10, -1, 0, 1, 10, 100], ["-100", "-10", "-1", "0", "1", "10", "100"])
    axes.set_xlabel("power of the wave, where a cell's noise has variance sigma$^2$")
    axes.set_ylabel("error of its sampled power [%]")
    axes.set_title("Samplers with an exact score; within the band is within 1 %", fontsize=10)
    figure.legend(fontsize=8, loc="outside right center")
    figure.savefig(OUT.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
