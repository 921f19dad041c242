"""The stand-in for ParallelCluster's CloudFormation provider in the embedded account.

On AWS the cluster stacks deploy the provider that AWS publishes in each region's
``REGION-aws-parallelcluster`` bucket. The embedded account publishes this one under the same
address. Three parts:

- ``template`` writes the CloudFormation text and lists what the account has to hold in S3;
- ``function`` is the Lambda function's code, which the template carries;
- ``library`` is run by the function in the second Python environment, where the unmodified
  ``aws-parallelcluster`` is installed, and calls it.
"""
