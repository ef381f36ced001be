"""Tells what a checkpoint is worth on a site's own studies, and adapts it to them."""
