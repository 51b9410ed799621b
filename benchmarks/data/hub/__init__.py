"""Data sets of the Hugging Face Hub at one commit; what is needed is fetched, checked and kept."""
