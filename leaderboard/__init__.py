"""Stored runs to leaderboard: rows with intervals and ranks, as table, Markdown, JSON, CSV, figure.

Run it as `python -m leaderboard RUNS --out DIR`; `benchmarks.run` calls `leaderboard.publish`.
"""

from leaderboard.publish import PublishedBoards, publish

__all__ = ["PublishedBoards", "publish"]
