"""A graph network that predicts the relaxation in one pass."""
