"""The embedded AWS account: a stand-in for AWS on the loopback address of one machine."""
