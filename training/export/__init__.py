"""Makes a trained checkpoint fit to serve: thresholds, averaging, quantization and the check of its engine."""
