"""The composition root: settings, addresses, base templates and the embedded services."""
