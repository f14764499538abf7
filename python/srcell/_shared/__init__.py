"""What all rooms share; it stands below them and imports nothing by itself."""
