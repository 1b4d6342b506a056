"""Fields from simulations and from the files that users have."""
