"""Whether the moves in an audit log follow the policies in it; from the records alone, so it works offline."""
