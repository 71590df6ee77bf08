"""How dates are written where Django's own formats would read oddly (FORMAT_MODULE_PATH)."""
