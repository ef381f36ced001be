"""Reference radiographs as vectors, and the search for those nearest to a query."""
