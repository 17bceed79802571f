"""What the doctor concludes from what was found."""
