"""Relaxations as other codes wrote them, brought to the layout of LeMat-Traj."""
