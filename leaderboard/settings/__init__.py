"""DFT settings as a question: errors by functional, and how far the functional moves the target.

Run it as `python -m leaderboard RUNS --data SOURCE --settings DIR`.
"""

from leaderboard.settings.files import report

__all__ = ["report"]
