"""Stored runs to leaderboard: rows with intervals and ranks, as table, Markdown, JSON, CSV, figure.

    python -m leaderboard RUNS --out DIR
"""
