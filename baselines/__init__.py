"""Relaxers to compare with: trivial ones, and interatomic potentials through ASE."""
