"""Keys and their signatures: what signs, and which signatures count."""
