"""What the notebooks share and a user of the science never needs: parameters, claims, figures, sweeps, command line."""
