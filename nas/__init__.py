"""Differentiable neural architecture search with one-path supernets."""
