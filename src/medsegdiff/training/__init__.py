"""Training: the objective (equation 3), the loop, validation by sampling, checkpoints to resume from."""
