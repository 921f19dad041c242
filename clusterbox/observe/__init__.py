"""The cluster seen: exporters, dashboards, alert rules, data frames and logs."""
