"""A particle-mesh step against the bare FFTs that it cannot do without, same process, in turns.

python benchmarks/particle_mesh.py [--particles 64] [--steps 10] [--batch 1] [--repeats 5] [--device cpu]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from turns import alternate

from gen.noise import sample_generator
from gen.simulate.initial import linear_modes, white_noise
from gen.simulate.mass_assignment import deposit, readout
from gen.simulate.particle_mesh import ParticleMesh, even_steps
from gen.simulate.theory import Cosmology, linear_power


def clock(device: str) -> float:
    """CPU seconds of this process, so that a busy machine does not count; wall-clock seconds on a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    n, device, cosmo = args.particles, args.device, Cosmology(0.3, 0.8)
    side = 2.0 * n
    noise = white_noise([sample_generator(0, i) for i in range(args.batch)], n).to(device)
    modes = linear_modes(noise, side, lambda k: torch.from_numpy(linear_power(cosmo, k)))
    pm = ParticleMesh(n, side, cosmo.Omega_m, even_steps(args.steps))
    last = list(pm.run(modes))[-1].positions
    m, kernels = pm.mesh, pm.force_kernels(last.device)
    count = deposit(last, m)
    potential = torch.fft.rfftn(count, dim=(1, 2, 3))
    fields = pm.acceleration(count, kernels[0] + kernels[1])

    def whole() -> None:
        for _ in pm.run(modes):
            pass

    def transforms() -> None:
        torch.fft.rfftn(count, dim=(1, 2, 3))
        for _ in range(3):
            torch.fft.irfftn(potential, s=(m, m, m), dim=(1, 2, 3))

    calls: dict[str, Callable[[], object]] = {
        "whole run": whole,
        "one force": lambda: pm.force(last, 1.0, kernels),
        "its bare FFTs": transforms,
        "its deposit": lambda: deposit(last, m),
        "its readout": lambda: readout(fields, last),
    }
    found = dict(
        zip(calls, alternate(list(calls.values()), args.repeats, lambda: clock(device)), strict=True)
    )
    step = found["whole run"] / args.steps
    print(f"{n}^3 particles, {m}^3 mesh, {args.steps} steps, batch {args.batch}, {device}, one thread")
    for name, seconds in found.items():
        print(f"  {name:14s} {seconds / args.batch * 1e3:9.1f} ms a realisation")
    print(f"  a step with its share of the start {step / args.batch * 1e3:.1f} ms, ", end="")
    print(f"{step / found['its bare FFTs']:.2f} times its bare FFTs")


if __name__ == "__main__":
    main()
