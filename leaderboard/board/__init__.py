"""The leaderboard as plain data."""
