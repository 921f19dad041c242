"""What the verdict of each of ParallelCluster's validators rests on, offline.

A test goes through the library and requires every validator to be listed, so that an upgrade that
brings a new one is noticed. A validator that is not listed is never counted as passed.
"""

from __future__ import annotations

# They judge the configuration alone, with the tables that the library brings.
CONFIGURATION = frozenset(
    {
        "AdditionalSssdConfigsValidator",
        "ArnServiceAndResourceValidator",
        "CliAttributeOverridesValidator",
        "ClusterNameValidator",
        "ComputeResourceSizeValidator",
        "ComputeResourceTagsValidator",
        "CustomSlurmNodeNamesValidator",
        "CustomSlurmSettingsIncludeFileOnlyValidator",
        "CustomSlurmSettingsValidator",
        "DatabaseUriValidator",
        "DeletionPolicyValidator",
        "DetailedMonitoringValidator",
        "DomainAddrValidator",
        "DomainNameValidator",
        "DuplicateNameValidator",
        "EbsVolumeIopsValidator",
        "EbsVolumeThroughputIopsValidator",
        "EbsVolumeThroughputValidator",
        "EbsVolumeTypeSizeValidator",
        "EfaMultiAzValidator",
        "EfaPlacementGroupValidator",
        "EfsAccessPointOptionsValidator",
        "EfsMountOptionsValidator",
        "ExternalSlurmdbdRequiresCustomMungeKey",
        "ExternalSlurmdbdTrafficNotEncrypted",
        "ExternalSlurmdbdVsDatabaseIncompatibility",
        "ExtraChefAttributesValidator",
        "FeatureRegionValidator",
        "FsxBackupOptionsValidator",
        "FsxDraValidator",
        "FsxPersistentOptionsValidator",
        "FsxS3Validator",
        "FsxStorageCapacityValidator",
        "FsxStorageTypeOptionsValidator",
        "IamResourcePrefixValidator",
        "InstanceTypeOSCompatibleValidator",
        "InstancesAllocationStrategyValidator",
        "IntelHpcOsValidator",
        "KmsKeyIdEncryptedValidator",
        "LdapTlsReqCertValidator",
        "LogRotationValidator",
        "ManagedFsxMultiAzValidator",
        "MaxCountValidator",
        "MixedSecurityGroupOverwriteValidator",
        "MultiAzPlacementGroupValidator",
        "NameValidator",
        "NumberOfStorageValidator",
        "OsCustomAmiValidator",
        "OverlappingMountDirValidator",
        "PlacementGroupCapacityTypeValidator",
        "RegionValidator",
        "RootVolumeEncryptionConsistencyValidator",
        "SchedulerValidator",
        "SharedEbsPerformanceBottleNeckValidator",
        "SharedFileCacheNotHomeValidator",
        "SharedStorageEfsSettingsValidator",
        "SharedStorageMountDirValidator",
        "SharedStorageNameValidator",
        "SingleInstanceTypeSubnetValidator",
        "SlurmNodePrioritiesWarningValidator",
    }
)

# They ask about instance types; a family that the facts do not know is not judged.
INSTANCE_TYPES = frozenset(
    {
        "ArchitectureOsValidator",
        "CapacityTypeValidator",
        "DcvValidator",
        "DuplicateMountDirValidator",
        "EfaOsArchitectureValidator",
        "EfaValidator",
        "FsxArchitectureOsValidator",
        "HeadNodeMemorySizeValidator",
        "InstanceArchitectureCompatibilityValidator",
        "InstanceTypeAcceleratorManufacturerValidator",
        "InstanceTypeMemoryInfoValidator",
        "InstanceTypePlacementGroupValidator",
        "InstanceTypeValidator",
        "InstancesAcceleratorsValidator",
        "InstancesCPUValidator",
        "InstancesEFAValidator",
        "InstancesMemorySchedulingWarningValidator",
        "InstancesNetworkingValidator",
        "IntelHpcArchitectureValidator",
        "SchedulableMemoryValidator",
    }
)

# They ask about what an environment states: its subnets, groups, images, file systems, buckets,
# roles, boundary, key pair and zone. Where it does not state it, they are not judged.
SITE = frozenset(
    {
        "AdditionalIamPolicyValidator",
        "AmiOsCompatibleValidator",
        "CustomAmiTagValidator",
        "EfaSecurityGroupValidator",
        "EfsIdValidator",
        "FsxAutoImportValidator",
        "HostedZoneValidator",
        "IamPolicyValidator",
        "InstanceTypeBaseAMICompatibleValidator",
        "KeyPairValidator",
        "LambdaFunctionsVpcConfigValidator",
        "MultiAzRootVolumeValidator",
        "MultiNetworkInterfacesInstancesValidator",
        "QueueSubnetsValidator",
        "RoleValidator",
        "RootVolumeSizeValidator",
        "S3BucketRegionValidator",
        "S3BucketUriValidator",
        "S3BucketValidator",
        "SecurityGroupsValidator",
        "SubnetsValidator",
    }
)

# They ask what AWS alone knows. Only what they find before they ask is reported.
AWS_ALONE = {
    "CapacityBlockHealthStatusValidator": "the state of capacity blocks",
    "CapacityReservationResourceGroupValidator": "what a resource group holds",
    "CapacityReservationSizeValidator": "the size of a reservation",
    "CapacityReservationValidator": "what a reservation reserves",
    "ComputeResourceLaunchTemplateValidator": "quotas, capacity and permissions of a launch",
    "EbsVolumeSizeSnapshotValidator": "the size of a snapshot",
    "ElasticIpValidator": "whether an elastic IP exists",
    "ExistingFsxNetworkingValidator": "the network of a file system that is not of the site",
    "FsxBackupIdValidator": "whether a backup exists",
    "HeadNodeLaunchTemplateValidator": "quotas, capacity and permissions of a launch",
    "InstanceProfileValidator": "whether an instance profile exists",
    "KmsKeyValidator": "whether a key exists",
    "LaunchTemplateValidator": "what a launch template holds",
    "MultiAzEbsVolumeValidator": "the zone of a volume that exists",
    "MungeKeySecretSizeAndBase64Validator": "what a secret holds",
    "PasswordSecretArnValidator": "whether a secret exists",
    "PlacementGroupCapacityReservationValidator": "what a reservation reserves",
    "PlacementGroupNamingValidator": "whether a placement group exists",
    "SharedEbsVolumeIdValidator": "whether a volume exists and is free",
    "UltraserverCapacityBlockSizeValidator": "the size of capacity blocks",
    "UnmanagedFsxMultiAzValidator": "the zones of a file system that is not of the site",
    "UrlValidator": "whether an address answers",
}

VALIDATORS = CONFIGURATION | INSTANCE_TYPES | SITE | AWS_ALONE.keys()
