"""Models by name: what each row says of them, what builds them, where they come from."""
