"""Where a formula is computed: one file for each kind of machine that runs it, over the array functions they share."""
