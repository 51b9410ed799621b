"""Training of the potentials that this project ships."""
