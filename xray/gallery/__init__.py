"""The radiographs of a dataset as vectors, and the search for the nearest of them."""
