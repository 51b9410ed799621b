"""Views of a board: texts and figures that are made from its data alone."""
