"""The engines that run the forward pass on a device, and the check that they agree with the reference."""
