"""Costs of a site: prices with their origin, and estimates of what files will cost."""
