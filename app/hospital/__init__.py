"""Receives studies from a hospital, analyzes them and delivers the results to its archive."""
