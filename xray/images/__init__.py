"""Decodes radiographs, and transforms them to the network's input and back."""
