"""The servers that ours is measured against, each as its own users would write it."""
