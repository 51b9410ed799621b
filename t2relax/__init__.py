"""Text to text (T2) crystal relaxation: a T5 that reads a CIF and writes the relaxed CIF."""
