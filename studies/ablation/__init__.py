"""What each part of the sequence reward is good for."""
