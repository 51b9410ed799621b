"""The harness: load held-out relaxations, run relaxers, store what they return.

python -m benchmarks.run --models t5,mace
"""
