"""The network, its checkpoint, and the interpretation of its outputs."""
