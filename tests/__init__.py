"""What the results mean, checked with drawn phantoms and, where a dataset is at hand, real radiographs."""
