"""Deploy a site, read back what stands, and remove it: on AWS or on the embedded account."""
