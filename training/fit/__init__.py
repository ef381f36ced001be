"""Trains a network, and resumes a run that was killed."""
