"""What a sandbox is made of, as data: mounts, filters, cgroups, identities and the steps that make it."""
