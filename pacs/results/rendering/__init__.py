"""Writes and reads results in child processes."""
