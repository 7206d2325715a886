"""Publishing: folders of packages as repositories, and bundles for offline machines."""
