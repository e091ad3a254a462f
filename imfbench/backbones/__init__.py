"""Networks u(z, t, r, condition)."""
