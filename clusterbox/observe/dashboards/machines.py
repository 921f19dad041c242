"""The dashboards of machines: nodes, containers, and a patch day."""

from __future__ import annotations

from clusterbox.observe.dashboards.model import (
    ALIVE,
    CLUSTER_CHOICE,
    NODE_CHOICE,
    QUEUE_CHOICE,
    Dashboard,
    Link,
    Panel,
    Query,
    Row,
    plain,
    rising,
)

# The label `job` is Prometheus' own: that of a container is scraped as `exported_job`.
_C = 'cluster=~"$cluster"'
_Q = 'cluster=~"$cluster", partition=~"$queue"'
_N = 'cluster=~"$cluster", queue=~"$queue", node=~"$node"'
_NODE_LINK = Link("clusterbox-node", (("cluster", "cluster"), ("node", "node")))
# What holds files; the rest is made of memory.
_DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs|proc|devtmpfs"'
_CARDS = 'device!~"lo|docker.*|veth.*"'

NODE = Dashboard(
    "clusterbox-node",
    "Nodes",
    "Machines as the node exporter sees them: head node, login nodes, compute nodes.",
    (CLUSTER_CHOICE, QUEUE_CHOICE, NODE_CHOICE),
    (
        Row(
            "Processors and memory",
            (
                Panel(
                    "CPU busy",
                    "timeseries",
                    (
                        Query(
                            "1 - avg by (cluster, node) (rate(node_cpu_seconds_total"
                            f'{{{_N}, mode="idle"}}[$__rate_interval]))',
                            "{{node}}",
                        ),
                    ),
                    "percentunit",
                    rising(0.9, 0.98),
                    "Share of the time in which CPUs were not idle. On a compute node much is good.",
                    greatest=1,
                    links=(_NODE_LINK,),
                ),
                Panel(
                    "Load for each CPU",
                    "timeseries",
                    (
                        Query(
                            f"max by (cluster, node) (node_load5{{{_N}}}) / count by (cluster, node)"
                            f' (node_cpu_seconds_total{{{_N}, mode="idle"}})',
                            "{{node}}",
                        ),
                    ),
                    "short",
                    rising(1.5, 3),
                    "Over 5 minutes. Above 1 processes wait for CPUs or disks.",
                    links=(_NODE_LINK,),
                ),
                Panel(
                    "Memory in use",
                    "timeseries",
                    (
                        Query(
                            f"1 - node_memory_MemAvailable_bytes{{{_N}}}"
                            f" / node_memory_MemTotal_bytes{{{_N}}}",
                            "{{node}}",
                        ),
                    ),
                    "percentunit",
                    rising(0.85, 0.95),
                    "What processes could not get any more.",
                    greatest=1,
                    links=(_NODE_LINK,),
                ),
                Panel(
                    "Fullest file system",
                    "bargauge",
                    (
                        Query(
                            "max by (cluster, node) (1 - node_filesystem_avail_bytes"
                            f"{{{_N}, {_DISKS}}} / node_filesystem_size_bytes{{{_N}, {_DISKS}}})",
                            "{{node}}",
                        ),
                    ),
                    "percentunit",
                    rising(0.8, 0.9),
                    "Of the file systems of each node.",
                    greatest=1,
                    links=(_NODE_LINK,),
                ),
            ),
        ),
        Row(
            "Disks and network",
            (
                Panel(
                    "Disks: read and written",
                    "timeseries",
                    (
                        Query(
                            "sum by (cluster, node) (rate(node_disk_read_bytes_total"
                            f"{{{_N}}}[$__rate_interval]))",
                            "{{node}} read",
                        ),
                        Query(
                            "sum by (cluster, node) (rate(node_disk_written_bytes_total"
                            f"{{{_N}}}[$__rate_interval]))",
                            "{{node}} written",
                        ),
                    ),
                    "Bps",
                    plain(),
                    "A gp3 disk gives 125 MB/s where nothing else was paid for.",
                ),
                Panel(
                    "Network: received and sent",
                    "timeseries",
                    (
                        Query(
                            "sum by (cluster, node) (rate(node_network_receive_bytes_total"
                            f"{{{_N}, {_CARDS}}}[$__rate_interval]))",
                            "{{node}} received",
                        ),
                        Query(
                            "sum by (cluster, node) (rate(node_network_transmit_bytes_total"
                            f"{{{_N}, {_CARDS}}}[$__rate_interval]))",
                            "{{node}} sent",
                        ),
                    ),
                    "Bps",
                    plain(),
                    "Shared file systems are in it.",
                ),
                Panel(
                    "Clock",
                    "timeseries",
                    (Query(f"abs(node_timex_offset_seconds{{{_N}}})", "{{node}}"),),
                    "s",
                    rising(0.05, 0.5),
                    "How far it is off. munge refuses messages at 300 s.",
                    width=8,
                ),
                Panel(
                    "Up since",
                    "table",
                    (
                        Query(
                            f"time() - max by (cluster, queue, node)"
                            f" (node_boot_time_seconds{{{_N}}})",
                            "up for",
                        ),
                    ),
                    "s",
                    plain(),
                    "Nodes that answer.",
                    width=8,
                    links=(_NODE_LINK,),
                ),
                Panel(
                    "GPUs busy",
                    "timeseries",
                    (
                        Query(
                            f"avg by (cluster, node, gpu) (DCGM_FI_DEV_GPU_UTIL{{{_N}}}) / 100",
                            "{{node}} GPU {{gpu}}",
                        ),
                    ),
                    "percentunit",
                    plain(),
                    "From NVIDIA's DCGM exporter, where a node has GPUs.",
                    greatest=1,
                    width=8,
                ),
            ),
        ),
    ),
)

CONTAINERS = Dashboard(
    "clusterbox-containers",
    "Containers",
    "Containers of Docker and Apptainer, by node, image and job.",
    (CLUSTER_CHOICE,),
    (
        Row(
            "Now",
            (
                Panel(
                    "Engine",
                    "stat",
                    (
                        Query(
                            f"min by (cluster, engine) (clusterbox_container_engine_up{{{_C}}})",
                            "{{engine}}",
                        ),
                    ),
                    "none",
                    ALIVE,
                    "Down: on some node the engine did not answer.",
                    width=6,
                    height=5,
                    words=((1, "up", "green"), (0, "down", "red")),
                ),
                Panel(
                    "Containers that run",
                    "stat",
                    (
                        Query(
                            f"sum by (engine) (clusterbox_containers{{{_C}}})",
                            "{{engine}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "By engine.",
                    width=6,
                    height=5,
                ),
                Panel(
                    "Containers, by image",
                    "bargauge",
                    (
                        Query(
                            "topk(10, count by (image)"
                            f" (clusterbox_container_memory_bytes{{{_C}}}))",
                            "{{image}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "The ten images with the most.",
                    height=5,
                ),
            ),
        ),
        Row(
            "Use",
            (
                Panel(
                    "CPUs, by container",
                    "timeseries",
                    (
                        Query(
                            "topk(10, sum by (cluster, container, exported_job) (rate("
                            f"clusterbox_container_cpu_seconds_total{{{_C}}}[$__rate_interval])))",
                            "{{container}} {{exported_job}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "CPUs that each keeps busy; the ten with the most.",
                ),
                Panel(
                    "Memory, by container",
                    "timeseries",
                    (
                        Query(
                            "topk(10, sum by (cluster, container, exported_job)"
                            f" (clusterbox_container_memory_bytes{{{_C}}}))",
                            "{{container}} {{exported_job}}",
                        ),
                    ),
                    "bytes",
                    plain(),
                    "The ten with the most.",
                ),
                Panel(
                    "Read",
                    "timeseries",
                    (
                        Query(
                            "topk(10, sum by (cluster, container, exported_job) (rate("
                            f"clusterbox_container_io_read_bytes_total{{{_C}}}"
                            "[$__rate_interval])))",
                            "{{container}} {{exported_job}}",
                        ),
                    ),
                    "Bps",
                    plain(),
                    "From disks; the ten with the most.",
                ),
                Panel(
                    "Written",
                    "timeseries",
                    (
                        Query(
                            "topk(10, sum by (cluster, container, exported_job) (rate("
                            f"clusterbox_container_io_write_bytes_total{{{_C}}}"
                            "[$__rate_interval])))",
                            "{{container}} {{exported_job}}",
                        ),
                    ),
                    "Bps",
                    plain(),
                    "To disks; the ten with the most.",
                ),
                Panel(
                    "Containers",
                    "table",
                    (
                        Query(
                            "sum by (cluster, engine, container, image, exported_job, user)"
                            f" (clusterbox_container_memory_bytes{{{_C}}})",
                            "memory",
                        ),
                    ),
                    "bytes",
                    plain(),
                    "All that run now; a container without a job was not started by Slurm.",
                    width=24,
                ),
            ),
        ),
    ),
)

PATCH_DAY = Dashboard(
    "clusterbox-patch-day",
    "Patch day",
    "Nodes while images change: who still runs the old kernel, what drains, what came back.",
    (CLUSTER_CHOICE, QUEUE_CHOICE),
    (
        Row(
            "Nodes",
            (
                Panel(
                    "Nodes by kernel",
                    "timeseries",
                    (
                        Query(
                            f"count by (cluster, release) (node_uname_info{{{_C}}})",
                            "{{cluster}} {{release}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "The old kernel's line ends at 0 when the last node has been replaced.",
                    is_stacked=True,
                ),
                Panel(
                    "Nodes by operating system",
                    "timeseries",
                    (
                        Query(
                            f"count by (cluster, pretty_name) (node_os_info{{{_C}}})",
                            "{{cluster}} {{pretty_name}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "As /etc/os-release names it.",
                    is_stacked=True,
                ),
                Panel(
                    "Longest up",
                    "bargauge",
                    (
                        Query(
                            "topk(10, time() - max by (cluster, node)"
                            f" (node_boot_time_seconds{{{_C}}}))",
                            "{{cluster}} {{node}}",
                        ),
                    ),
                    "s",
                    rising(30 * 86_400, 35 * 86_400),
                    "Since boot; more than a patch day's distance: it was left out.",
                    links=(_NODE_LINK,),
                ),
                Panel(
                    "Draining, booting, failing",
                    "timeseries",
                    (
                        Query(
                            "sum by (state) (slurm_compute_resource_nodes"
                            f'{{{_Q}, state=~"drain|down|powering_up|powering_down|fail|maint"}})',
                            "{{state}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "Nodes on their way from the old image to the new one.",
                    is_stacked=True,
                ),
            ),
        ),
        Row(
            "Images",
            (
                Panel(
                    "Age of images",
                    "bargauge",
                    (
                        Query(
                            "max by (image) (clusterbox_image_age_seconds)",
                            "{{image}}",
                        ),
                    ),
                    "s",
                    rising(30 * 86_400, 35 * 86_400),
                    "Since they were made; above 35 days a patch day is due.",
                    width=24,
                    height=6,
                ),
            ),
        ),
        Row(
            "Jobs",
            (
                Panel(
                    "Jobs that still run",
                    "timeseries",
                    (
                        Query(
                            f'sum by (cluster, partition) (slurm_jobs{{{_Q}, state="running"}})',
                            "{{partition}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "Draining waits for them.",
                    width=8,
                    is_stacked=True,
                ),
                Panel(
                    "Jobs that wait",
                    "timeseries",
                    (
                        Query(
                            f"sum by (cluster, partition) (slurm_partition_jobs_pending{{{_Q}}})",
                            "{{partition}}",
                        ),
                    ),
                    "short",
                    rising(1_000, 10_000),
                    "They start when new nodes are there.",
                    width=8,
                    is_stacked=True,
                ),
                Panel(
                    "Jobs that failed in the span shown",
                    "stat",
                    (
                        Query(
                            "sum by (cluster) (increase(slurm_jobs_ended_total"
                            f'{{{_Q}, state=~"failed|node_fail|boot_fail"}}[$__range]))'
                            f" or sum by (cluster) (slurm_up{{{_C}}}) * 0",
                            "{{cluster}}",
                        ),
                    ),
                    "short",
                    rising(1, 10),
                    "Many after a patch day: the new image lacks something.",
                    width=8,
                    links=(Link("clusterbox-cluster", (("cluster", "cluster"),)),),
                ),
            ),
        ),
    ),
)
