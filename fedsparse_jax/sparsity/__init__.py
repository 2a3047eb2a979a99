"""What is pruned, how much, when, and what returns."""
