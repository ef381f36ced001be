"""Turns the bytes of an image into a prediction, for many callers of the service at once."""
