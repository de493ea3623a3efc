"""The 3D CNN: convolutions, pathways, fusion, heads. Knows arrays and labels only."""
