"""What the packaged recipe of the T5 is good for."""
