"""The two engines that relax with a potential, ASE and torch-sim, and their common protocol."""
