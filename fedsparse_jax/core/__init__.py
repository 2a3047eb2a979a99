"""Words and pytree algebra that everything shares."""
