"""The build of the relocatable bundle, which scripts/bundle runs and describes."""
