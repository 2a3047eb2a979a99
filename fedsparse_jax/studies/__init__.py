"""Questions answered by one or many runs."""
