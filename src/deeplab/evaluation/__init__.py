"""How good is a network: counts that merge, a stated protocol, a report."""
