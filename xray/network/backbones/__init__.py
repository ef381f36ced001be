"""The architectures that the network can be built on, one in each module."""
