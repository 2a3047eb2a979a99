"""The synthetic ageing brain, and a cohort of them written as files."""
