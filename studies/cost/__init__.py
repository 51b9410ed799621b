"""The cost of models: time and memory by the number of sites, and by the size of the batch.

Above the registry, since it measures potentials and the T5 alike, each as `benchmarks.run` starts
it: a worker process of its own for every point, so that its peak memory is its own.
"""
