"""Reference relaxations of our own with GPAW, under the interpreter that has GPAW.

The command is `python -m benchmarks.dft`. `gpaw_worker` is the only file that runs under
GPAW's interpreter and imports nothing of ours; everything else imports nothing of GPAW.
"""
