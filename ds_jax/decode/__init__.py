"""Sampling and the jitted expansion of tree nodes."""
