"""The audit log as data: events, records, the Merkle tree over them, signed checkpoints, and verification."""
