"""Structures as text: reading CIFs, the Delta encoding, the vocabulary and the grammar."""
