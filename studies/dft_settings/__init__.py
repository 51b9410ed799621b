"""DFT settings as a question: errors by functional, and how far the functional moves the target.

Run it as `python -m studies.dft_settings RUNS --data SOURCE --out DIR`.
"""

from studies.dft_settings.findings import report

__all__ = ["report"]
