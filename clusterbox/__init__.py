"""An AWS ParallelCluster site as one repository: everything that is not a CDK stack."""
