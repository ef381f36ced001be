"""Mirrors the package of this name."""
