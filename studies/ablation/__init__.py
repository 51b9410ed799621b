"""The ablation of the sequence reward: its parts, one by one."""
