"""The embedded default: what runs next to the platform on one machine so that nothing has to be installed."""
