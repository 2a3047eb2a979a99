"""Files of a run in, figures and HTML out; the only room with matplotlib."""
