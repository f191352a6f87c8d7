"""What a config needs on a slice, found by compiling for it: ahead of time, without its chips."""
