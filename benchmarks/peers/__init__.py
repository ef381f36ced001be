"""The servers with which ours is compared, each written like its users would write it."""
