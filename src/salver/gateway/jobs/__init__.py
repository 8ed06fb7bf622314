"""Jobs on the data listener: submitted and asked after (`door`), run when there is room (`runner`, `attempt`)."""
