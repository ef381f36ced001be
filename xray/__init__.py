"""What a radiograph is, and what the network says about it."""
