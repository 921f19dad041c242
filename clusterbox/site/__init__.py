"""The typed model of a site: environments, clusters, images, names and tags.

Both the stacks and the rest of clusterbox import this package; it imports neither
aws_cdk nor boto3, so that synth stays hermetic and the command starts fast.
"""
