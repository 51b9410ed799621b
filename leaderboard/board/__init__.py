"""A board: plain data, made from stored runs."""
