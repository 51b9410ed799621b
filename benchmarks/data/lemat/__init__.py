"""The reader of the layout of LeMat-Traj: from frames to ordered trajectories and their ends."""
