"""Training pairs as text."""
