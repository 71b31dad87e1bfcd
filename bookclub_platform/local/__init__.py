"""The embedded default: what runs beside the platform on one machine so that nothing has to be installed."""
