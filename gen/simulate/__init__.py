"""Simulated fields without any download: theory, particle mesh, lensing."""
