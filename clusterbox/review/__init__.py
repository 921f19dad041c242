"""Judge a change before it is merged: stacks, security, clusters, costs and addresses."""
