"""Renders and reads results in child processes."""
