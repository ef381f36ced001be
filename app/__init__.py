"""The HTTP service: radiographs in, probabilities, overlays and neighbors out."""
