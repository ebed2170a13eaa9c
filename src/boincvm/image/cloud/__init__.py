"""Cloud mode: machines that no boincvm starts, and the seeds that tell them what they are."""
