"""Diffusion: noise levels, solvers that are proven on Gaussian fields, and what they cost in bias."""
