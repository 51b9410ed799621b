"""What a hybrid saves: `A+B` against B alone, which starts from the unrelaxed structure.

Written as `hybrids.md` and `hybrids.json` beside a board that has both rows, from stored runs only.
"""

from leaderboard.board.hybrids.final_structures import with_ends
from leaderboard.board.hybrids.savings import Saving, savings
from leaderboard.board.hybrids.text import markdown, to_json

__all__ = ["Saving", "markdown", "savings", "to_json", "with_ends"]
