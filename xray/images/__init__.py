"""What a radiograph is, and the transforms between its pixels and the network's input."""
