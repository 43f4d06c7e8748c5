"""What the contrastive refinement of a closed form gains, on real sections and in simulated worlds."""
