"""Stored runs to boards: rows with intervals and ranks, as JSON, Markdown, CSV and figure.

Run it as `python -m leaderboard RUNS --out DIR`; `benchmarks.run` calls `leaderboard.publish`.
"""

from leaderboard.publish import PublishedBoards, publish

__all__ = ["PublishedBoards", "publish"]
