"""What runs in AWS for the budgets: it knows neither the stacks nor the rest of clusterbox."""
