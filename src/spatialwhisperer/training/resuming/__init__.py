"""A run that goes on where it was stopped: what identifies it, its checkpoints, and the state of the random generators."""
