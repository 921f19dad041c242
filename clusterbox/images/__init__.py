"""Machine images: from their definitions to what bakes them."""
