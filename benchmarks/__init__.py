"""Where the figures of the README come from: scripts that measure, and the JSON files that they write."""
