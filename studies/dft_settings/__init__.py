"""DFT settings as a question: errors by functional, and the shift of the target by the functional.

Run it as `python -m studies.dft_settings RUNS --data SOURCE --out DIR`.
"""
