"""The service, spoken to over real HTTP on the loopback."""
