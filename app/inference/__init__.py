"""From the bytes of an image to its prediction, for many callers at once."""
