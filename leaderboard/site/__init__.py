"""The leaderboard as static pages: `python -m leaderboard RUNS --site DIR`.

Every table is whole in the HTML; the scripts of `assets` sort, filter and weigh what is there. The
pages open from `file://`: data for scripts are classic scripts, and the state of a view is in the
location's hash.
"""
