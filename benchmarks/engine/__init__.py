"""Runs relaxers in worker processes that may fail, over all samples of a data set."""
