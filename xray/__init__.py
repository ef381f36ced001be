"""Radiographs, the network that analyzes them, and the gallery of reference radiographs."""
