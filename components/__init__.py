"""The stages of Lockgate, one folder each, and the few modules that they share."""
