"""Trains a network, and resumes a run after a kill."""
