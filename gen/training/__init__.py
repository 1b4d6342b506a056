"""From a recipe to a checkpoint: losses, steps, guards, states that survive a kill."""
