"""A durable queue of studies that wait for analysis, encrypted at rest."""
