"""From files to federations."""
