"""Writes the HTML page of an evaluation."""
