"""The only readers of a ConfigDict: defaults, methods, and what a config becomes."""
