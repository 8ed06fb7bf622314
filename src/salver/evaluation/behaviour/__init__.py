"""How it behaves: where inputs change, are damaged, or belong to different groups of people."""
