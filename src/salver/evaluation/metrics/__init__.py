"""How good it is: metrics with bounds, costs, slices, calibration."""
