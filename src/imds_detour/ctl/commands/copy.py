"""imds-detourctl copy: copy the bundle into a volume, for containers whose image must not change."""

from imds_detour.system.bundle_copy import add_arguments, run

__all__ = ["add_arguments", "run"]
