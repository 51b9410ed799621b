"""The language model: weights, decoding, initial vectors."""
