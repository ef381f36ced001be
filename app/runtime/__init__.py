"""The server process: connections, health, metrics and graceful shutdown."""
