"""A small language with a policy and judges that speak it, so that a whole run fits on a laptop."""
