"""The ops, declared once each with all facets, by families; importing this fills the registry."""
