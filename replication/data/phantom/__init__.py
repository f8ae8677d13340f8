"""Synthetic chests, drawn from a seed."""
