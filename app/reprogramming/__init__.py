"""Programs: how a target image becomes source images, and how source scores become target scores."""
