"""What runs the forward pass on a device, and the check that all engines agree with the reference."""
