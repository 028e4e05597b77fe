"""Search for networks that learn well at a given cost: the spaces, what their networks cost, and weight sharing."""
