"""From a data set to a trained network: settings, losses, schedule, one visible loop."""
