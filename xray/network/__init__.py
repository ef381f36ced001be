"""The network, its checkpoint, and what its outputs mean."""
