"""Getting base models: from the Hub, a folder or a file, pinned, checked, read but never executed."""
