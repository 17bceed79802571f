"""What an evaluation, a replay and a comparison of candidates found."""
