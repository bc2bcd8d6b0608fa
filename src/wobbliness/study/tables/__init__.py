"""Tables of a study, formed from its records."""
