"""A held-out split of any source: groups that never span two parts, and the files that fix it."""
