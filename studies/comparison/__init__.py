"""The comparison of the packaged recipe of the T5 with other recipes."""
