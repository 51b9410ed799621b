"""Interatomic potentials, one file a family."""
