"""A gallery of reference radiographs as vectors, and the search for the ones nearest to a query."""
