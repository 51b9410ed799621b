"""What a hybrid saves: `A+B` against B alone, which starts from the unrelaxed structure.

Written as `hybrids.md` and `hybrids.json` beside a board that has both rows, from stored runs only.
"""

from leaderboard.hybrids.ends import with_ends
from leaderboard.hybrids.savings import Saving, savings
from leaderboard.hybrids.text import markdown, to_json

__all__ = ["Saving", "markdown", "savings", "to_json", "with_ends"]
