"""Gradient boosting on composition and cell."""
