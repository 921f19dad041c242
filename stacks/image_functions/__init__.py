"""What runs by itself around images: the functions and the script of the stack `ENV-images`."""
