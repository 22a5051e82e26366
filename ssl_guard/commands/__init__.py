"""The commands: flags and printing. No other module imports them."""
