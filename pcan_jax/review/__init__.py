"""A page on which a person reviews the events of one video: one file, no server, no network."""
