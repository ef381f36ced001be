"""Turns the bytes of an image into its prediction, for many callers at once."""
