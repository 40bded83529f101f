"""What is given as images: found, checked one by one out of harm's way, and sorted."""
