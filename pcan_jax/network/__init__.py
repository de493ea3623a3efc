"""The 3D CNN: convolutions, pathways, what joins them, heads. Knows arrays and labels only."""
