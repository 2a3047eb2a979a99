"""Formulations of convolution."""
